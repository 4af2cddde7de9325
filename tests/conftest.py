"""One thread for tensors this small: more of them wait for each other, by far the longer on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
