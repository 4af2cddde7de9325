"""The states of all random number generators that a run uses."""

import random
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStates:
    """The states of the generators at one moment.

    Attributes:
        python: state of Python's generator, as `random.getstate` returns it.
        numpy: state of NumPy's generator: name, words, position, and the cached normal sample.
        torch: state of torch's generator on the CPU.
        cuda: state of torch's generator on the current GPU; None where no GPU is in use.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls) -> Self:
        """Return the current states."""
        numpy: Any = np.random.get_state(legacy=True)  # its annotation is a union of both forms
        # A process uses one GPU. The others it sees may be other ones where it goes on.
        # Asking a GPU that is not in use yet would take memory of it.
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Put all generators back to these states. The state of a GPU is ignored where none is in use."""
        random.setstate(self.python)
        name, words, position, has_cached, cached = self.numpy
        np.random.set_state((name, words, position, has_cached, cached))
        torch.set_rng_state(self.torch)
        if self.cuda is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(self.cuda)
