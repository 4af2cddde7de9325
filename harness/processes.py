"""The processes that make a run together, one per device, as `accelerate launch` or `torchrun` starts them.

Without a launcher there is one process, and nothing here communicates. The first process alone writes files, shows
progress and decides what is run; the others follow it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

ValueT = TypeVar("ValueT")
RANK, COUNT, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
"""Environment variables in which a launcher tells each process its number, how many there are, and its number on this
machine."""


@dataclass(frozen=True)
class Processes:
    """The processes of this run, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def launched(cls, device: torch.device) -> Self:
        """Return the processes that the launcher started, and connect to them; one process without a launcher.

        Args:
            device: the device of this process; processes on GPUs communicate by NCCL, others by Gloo.
        """
        if int(os.environ.get(COUNT, "1")) == 1:
            return cls()
        state = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the first process, which alone writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes. Every process must call this, with the same shape."""
        if self.count == 1:
            return tensor
        total: Tensor = reduce(tensor, reduction="sum")
        return total

    def gather(self, value: ValueT) -> list[ValueT]:
        """Return the value of each process, in their order. Every process must call this."""
        if self.count == 1:
            return [value]
        values: list[ValueT] = gather_object([value])
        return values

    def broadcast(self, value: ValueT) -> ValueT:
        """Return the first process's value. Every process must call this; the values of the others are not used."""
        if self.count == 1:
            return value
        received: list[Any] = broadcast_object_list([value])
        return received[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the first process run the body alone, and then the others together."""
        if self.count == 1:
            yield
            return
        with PartialState().main_process_first():
            yield


ALONE = Processes()
"""One process by itself."""


def is_follower() -> bool:
    """Whether a launcher started this process as another than the first."""
    return os.environ.get(RANK, "0") != "0"


def local_rank() -> int | None:
    """Return the number of this process on this machine; None without a launcher."""
    found = os.environ.get(LOCAL_RANK)
    return int(found) if found is not None and int(os.environ.get(COUNT, "1")) > 1 else None
