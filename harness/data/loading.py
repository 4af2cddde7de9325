"""Prepare batches ahead of the model, in worker processes where there are cores for them.

Whatever the number of workers, the same batches come in the same order. Workers are forked: they share the examples,
the tokenizer and the decoded images with their parent and start in milliseconds, where a new interpreter would import
everything again in every epoch. They never use the GPU, which a forked process could not do.
"""

import copy
import mmap
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader

from harness.data.collate import Collator, Example
from harness.data.cores import usable_cores
from harness.errors import UserError, first_line
from harness.stopping import SIGNALS, signals_blocked, unblock_signals

BatchT = TypeVar("BatchT")
MAX_WORKERS = 8
"""The most workers that `--workers auto` starts."""
WORKER_BYTES = 128 * 2**20
"""Shared memory that a worker's batches may take: three of 32 images of 336 x 336 pixels, as float32."""
_CAN_FORK = "fork" in multiprocessing.get_all_start_methods()


@dataclass(frozen=True, slots=True)
class Loading:
    """How batches are prepared. It changes no batch.

    Attributes:
        workers: worker processes; 0 prepares each batch when it is asked for.
        pin: put the batches into page-locked memory, from which they are copied to a GPU while the model runs.
    """

    workers: int = 0
    pin: bool = False

    @classmethod
    def of(cls, option: int | None, device: torch.device) -> "Loading":
        """Return how batches are prepared for a model on `device`.

        Args:
            option: value of `--workers`; None for `auto`. For an NVIDIA GPU that is up to `MAX_WORKERS`, with one
                core left to the training loop, and as many as the shared memory has room for. The processes that a
                launcher starts on this machine divide both. Elsewhere it is none: on a CPU the model needs the cores
                itself.
            device: the model's device.

        Raises:
            UserError: workers are asked for on a system that cannot fork processes.
        """
        if option is None:
            sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as launchers set it
            spare = min(MAX_WORKERS, usable_cores() // sharing - 1, _shared_memory() // sharing // WORKER_BYTES)
            spare = max(spare, 0)
            option = spare if device.type == "cuda" and _CAN_FORK else 0
        if option and not _CAN_FORK:
            raise UserError(f"--workers {option}: this system cannot fork processes; leave the option out")
        return cls(option, pin=device.type == "cuda")


def _shared_memory() -> int:
    """Return the free bytes of the file system through which workers hand over their batches."""
    # A container often has 64 MB of it, and a worker that finds it full is killed.
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0


class _Prepared(NamedTuple, Generic[BatchT]):
    """What comes from a worker: a batch, the ids of its examples that were cut, or the user's error."""

    batch: BatchT | None
    cut: list[str]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Prepare(Generic[BatchT]):
    """Build one batch, in the main process or in a worker.

    A worker's `collator` is a copy, so what it notes comes back with the batch. So does an error of the user, which
    torch would wrap in the worker's traceback.
    """

    build: Callable[[Sequence[Example]], BatchT]
    collator: Collator

    def __call__(self, examples: Sequence[Example]) -> _Prepared[BatchT]:
        try:
            batch = self.build(examples)
        except UserError as error:
            return _Prepared(None, [], str(error))
        return _Prepared(batch, [example.id for example in examples if example.id in self.collator.cut])


@contextmanager
def prepared_batches(
    examples: Sequence[Example],
    indices: Iterable[Sequence[int]],
    build: Callable[[Sequence[Example]], BatchT],
    collator: Collator,
    loading: Loading,
    generator: torch.Generator | None = None,
) -> Generator[Iterator[BatchT], None, None]:
    """Give an iterator over batches. Leaving the context ends the workers.

    Args:
        examples: the examples that `indices` count.
        indices: a batch sampler: the indices of each batch's examples.
        build: makes a batch of these examples, with `collator`.
        collator: `collator.cut` names the cut examples of the batches that the iterator has given.
        loading: how batches are prepared.
        generator: a number is drawn from it, as torch does for the seeds of workers; None draws from a new one.

    Raises:
        UserError: an image cannot be used, or a worker was killed.
    """
    loader: DataLoader[Example] = DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is enough, though torch's annotation asks for a Dataset
        batch_sampler=indices,  # type: ignore[arg-type]  # any iterable of index lists will do
        num_workers=loading.workers,
        collate_fn=_Prepare(build, collator),
        pin_memory=loading.pin,
        generator=torch.Generator() if generator is None else generator,
        multiprocessing_context=_fork_context() if loading.workers else None,
        worker_init_fn=_Worker(os.getpid()),
    )
    # The workers that start meanwhile have handlers of their own once they let signals through.
    with signals_blocked():
        iterator: Any = iter(loader)
    try:
        yield _delivered(iterator, collator)
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            advice = "there may be too little memory: give fewer --workers"
            raise UserError(f"a process that prepares batches was killed ({first_line(error)}); {advice}") from error
        raise
    finally:
        if loading.workers:
            # torch does this when nothing refers to the iterator any more, but the traceback of an exception does.
            iterator._shutdown_workers()
            for worker in iterator._workers:  # one that a batch still keeps busy
                worker.kill()
                worker.join()


def _delivered(iterator: Iterator[_Prepared[BatchT]], collator: Collator) -> Iterator[BatchT]:
    for batch, cut, error in iterator:
        if error is not None:
            raise UserError(error)
        assert batch is not None, "a batch without an error"
        collator.cut.update(cut)
        yield batch


class _Flag:
    """An event that forked processes share, without a lock that a killed process would hold for ever."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


def _fork_context() -> Any:
    """Return how torch starts workers, with the event that tells them to end."""
    context: Any = copy.copy(multiprocessing.get_context("fork"))
    context.Event = _Flag
    return context


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a worker does first: it sees to it that it ends quietly, and not after its parent.

    Attributes:
        parent: process id of the parent.
    """

    parent: int

    def __call__(self, number: int) -> None:
        # A thread of the parent may have held the locks of these streams when the worker was forked.
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open as long as the process lives
        # A terminal or a scheduler signals all processes of a run at once. Their parent then ends the workers: one that
        # ended by itself could leave half a batch, and the parent would wait for the rest.
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        unblock_signals()
        threading.Thread(target=self._follow_parent, daemon=True).start()

    def _follow_parent(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(0.2)
        os._exit(0)
