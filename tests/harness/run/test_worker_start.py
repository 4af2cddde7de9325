"""How worker processes start: with everything imported, and with memory that stays theirs."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from harness.run.worker_start import GLIBC, KEEP_MEMORY, worker_context
from harness.stopping import SIGNALS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker is a new interpreter"),
]


def _tell(connection: "Connection[Any, Any]") -> None:
    """Send what a worker finds when it begins."""
    begun_with = open(f"/proc/{os.getpid()}/environ").read().split("\0")  # noqa: SIM115  # the process ends
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    connection.send(("harness.run.phases" in sys.modules, "open_clip" in sys.modules, begun_with, blocked))


def _found_by_worker() -> tuple[bool, bool, list[str], set[signal.Signals]]:
    context = worker_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(theirs,))
    process.start()
    found: tuple[bool, bool, list[str], set[signal.Signals]] = ours.recv()
    process.join()
    assert process.exitcode == 0
    return found


def _in_a_new_process(check: Callable[[], None]) -> None:
    """Call a check where nothing has started a process that others are forked from, as another test may have here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        executor.submit(check).result()


def _check_a_worker() -> None:
    imported, clip_imported, begun_with, blocked = _found_by_worker()
    assert imported and clip_imported
    # glibc cuts its settings apart where they stand, so only the first is sure to be seen.
    first = os.environ.get(GLIBC, KEEP_MEMORY).partition(":")[0]
    assert f"{GLIBC}={first}" in [entry[: len(GLIBC) + 1 + len(first)] for entry in begun_with]
    assert blocked >= set(SIGNALS)
    assert GLIBC not in os.environ or os.environ[GLIBC] != KEEP_MEMORY  # only what is started has it


def _check_a_stop() -> None:
    worker_context()
    (origin,) = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    for signum in SIGNALS:
        origin.send_signal(signum)
    assert _found_by_worker()[0]
    assert origin.is_running()


def test_a_worker_has_imported_what_runs_need_and_keeps_memory_and_signals() -> None:
    _in_a_new_process(_check_a_worker)


def test_a_stop_of_all_processes_leaves_workers_startable() -> None:
    """The process that workers are forked from must not end by the signal that ends a run."""
    _in_a_new_process(_check_a_stop)
