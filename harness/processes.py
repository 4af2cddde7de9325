"""The processes that make a run together, one per device, as `accelerate launch` or `torchrun` starts them.

Without a launcher there is one process, and nothing here communicates. The first process alone writes files, shows
progress and decides what is run; the others follow it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, Self, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, parse_flag_from_env, reduce
from torch import Tensor, nn

from harness.errors import first_line

ValueT = TypeVar("ValueT")
RANK, COUNT, LOCAL_RANK, LOCAL_COUNT = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
"""Environment variables in which a launcher tells each process its number, how many there are, its number on this
machine, and how many are on this machine."""
FSDP = "ACCELERATE_USE_FSDP"
"""Environment variable in which `accelerate launch` says that its configuration asks for FSDP."""
PATIENCE = timedelta(days=1)
"""How long a process waits for the others, for instance while the first one scores captions."""

TOGETHER = "all processes end, because they share the layers"


class OtherProcessFailedError(RuntimeError):
    """Another process of the same run failed; the message is its own."""


class OutOfStepError(BaseException):
    """The first of several processes in step cannot go on, and the others wait for it in the middle of a layer.

    The cause says why. It is no `Exception`, because whoever went on after it would talk to them out of turn.
    """


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
        if launched_processes() == 1:
            return cls()
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        return cls.current()

    @classmethod
    def current(cls) -> Self:
        """Return the processes that this one is connected to; it alone before `launched` has been called."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the first process, which alone writes files."""
        return self.rank == 0

    @property
    def are_in_step(self) -> bool:
        """Whether each holds a part of the frozen decoder layers only, so that all must run every layer together."""
        return self.count > 1 and shards() > 1

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

    def share(self, module: nn.Module) -> None:
        """Copy the first process's parameters into those of the others. Every process must call this."""
        if self.count > 1:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.copy_(broadcast(parameter.detach().clone()))

    def of_first(self, tensor: Tensor) -> Tensor:
        """Return the first process's tensor. Every process must call this, with the same shape."""
        if self.count == 1:
            return tensor
        received: Tensor = broadcast(tensor.contiguous())
        return received

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Run a body in which decoder layers run. If it fails in one of several processes in step, all of them end.

        Raises:
            OutOfStepError: it failed in the first process, which then writes its record and calls `end`.
        """
        try:
            yield
        except Exception as error:
            if not self.are_in_step:
                raise
            self.leave(error)

    def leave(self, error: Exception) -> NoReturn:
        """Leave the other processes in step, because this one cannot go on; see `in_step`."""
        if self.is_main:
            raise OutOfStepError from error
        self.end(error)

    def end(self, error: BaseException) -> NoReturn:
        """Say why this process cannot go on, and end it at once. The launcher then ends the others.

        They wait for this one in the middle of a layer, so nothing else can be told to them.
        """
        print(
            f"process {self.rank} of {self.count}: {type(error).__name__}: {first_line(error)}; {TOGETHER}; the same "
            "command goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let every process end the body in the same way: if it fails in one, it fails in all.

        Nothing in the body may wait for another process.

        Raises:
            OtherProcessFailedError: the body failed in another process.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        messages = self.gather(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise OtherProcessFailedError(f"process {rank} of {self.count}: {message}")

    def close(self) -> None:
        """Disconnect from the other processes."""
        if self.count > 1:
            PartialState().destroy_process_group()

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


def launched_processes() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get(COUNT, "1"))


def shards() -> int:
    """Return among how many processes the launcher divides the frozen decoder layers; 1 if each has them whole."""
    return launched_processes() if parse_flag_from_env(FSDP) else 1


def is_follower() -> bool:
    """Whether a launcher started this process as another than the first."""
    return os.environ.get(RANK, "0") != "0"


def local_processes() -> int:
    """Return how many processes the launcher started on this machine; 1 without a launcher."""
    return int(os.environ.get(LOCAL_COUNT, "1"))


def local_rank() -> int | None:
    """Return the number of this process on this machine; None without a launcher."""
    found = os.environ.get(LOCAL_RANK)
    return int(found) if found is not None and launched_processes() > 1 else None
