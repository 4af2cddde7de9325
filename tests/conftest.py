"""Use one thread: with tensors this small, several threads mostly wait for each other, above all on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
