"""How the worker processes of a sweep start.

On Linux they are forked from a process of their own kind, which has imported everything and computed nothing. It starts
while the command is still checking what it was asked for, so no worker has to wait for its imports. Elsewhere every
worker is a new interpreter.

That process also chooses how glibc takes memory from the system, because glibc reads its settings once, when a program
starts. A training step on a CPU allocates and frees hundreds of megabytes. By default, glibc gives much of that back to
the system at once, and the next step has to wait until the system has filled the same pages with zeros again. With the
settings here it keeps the memory, in pages of 2 MB where the system allows that.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from harness.stopping import signals_blocked

GLIBC = "GLIBC_TUNABLES"
"""The variable with settings of glibc, see the chapter on tunables of its manual. A value of the user's is left."""
KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}={value}" for name, value in {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 2**32}.items()
)
_PRELOADED = ["harness.run.worker", "open_clip", "transformers.models.llama.modeling_llama"]
"""The modules with which a worker has imported everything that a run needs."""


def worker_context() -> ForkServerContext | SpawnContext:
    """Return how workers start. The first call begins to start the process that they are forked from."""
    resource_tracker.ensure_running()  # which starting a process would do otherwise, and let signals through again
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    # A signal to all processes of a command must not end the one that workers are forked from. A worker keeps signals
    # back, too, until it calls `unblock_signals`.
    with signals_blocked(), _keeping_memory():
        forkserver.ensure_running()
    return context


@contextmanager
def _keeping_memory() -> Iterator[None]:
    """Let the programs that start meanwhile keep memory that they have freed."""
    if GLIBC in os.environ:
        yield
        return
    os.environ[GLIBC] = KEEP_MEMORY
    try:
        yield
    finally:
        del os.environ[GLIBC]
