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
        cuda: state of torch's generator on each GPU; empty without a GPU.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> Self:
        """Return the current states."""
        numpy: Any = np.random.get_state(legacy=True)  # its annotation is a union of both forms
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Put all generators back to these states. States of GPUs are ignored where there is no GPU."""
        random.setstate(self.python)
        name, words, position, has_cached, cached = self.numpy
        np.random.set_state((name, words, position, has_cached, cached))
        torch.set_rng_state(self.torch)
        if self.cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.cuda)
