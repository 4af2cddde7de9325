"""Checkpoints of training: everything that an interrupted run needs to go on as if nothing had happened.

accelerate's own `save_state` is not used, because it pickles the optimiser and the random states, and because it would
write the frozen backbone with every checkpoint.

A checkpoint is a folder `step-00000120` with two files. `state.safetensors` holds tensors: the adapter, the optimiser's
state and the states of torch's random number generators. `state.json` holds the rest: the progress, the states of
Python's and NumPy's generators, and the SHA-256 of the first file. Both are read without unpickling anything, and both
hold the states of every process.

A checkpoint is written to a temporary folder that is then renamed, so a folder of that name is always whole. The last
two are kept: if the newest one is damaged, the one before is used.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from harness.errors import UserError, first_error, first_line
from harness.files import read_file, write_atomic
from harness.run.measured import TrainResult
from harness.run.random_states import RandomStates

KEPT = 2
"""How many checkpoints of a run are kept."""
TENSORS_FILE, STATE_FILE = "state.safetensors", "state.json"
LARGEST_TENSORS = 2**40
"""No file of a checkpoint's tensors has more bytes."""


class TrainingState(BaseModel):
    """How far training is, and what it has measured.

    Attributes:
        spec_hash: the run that the checkpoint belongs to.
        steps_of_epoch: optimiser steps of the current epoch that are done.
        measured: what training has measured so far; it goes on with the same samples per forward pass.
        cut: ids of the training examples that were cut to `max_length`.
        python_rng: state of Python's generator in each process, as `random.getstate` returns it.
        numpy_rng: state of NumPy's generator in each process: name, words, position, and the cached normal sample.
        tensors_sha256: hash of the file of tensors.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    spec_hash: str
    steps_of_epoch: int
    measured: TrainResult
    cut: list[str]
    python_rng: list[tuple[int, list[int], float | None]]
    numpy_rng: list[tuple[str, list[int], int, int, float]]
    tensors_sha256: str


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one line that says why."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are kept.
        spec_hash: the run; a checkpoint of another run is never used.
        minutes: time between two checkpoints; 0 writes one after every optimiser step.
    """

    def __init__(self, folder: Path, spec_hash: str, minutes: float) -> None:
        self.folder, self.spec_hash = folder, spec_hash
        self.interval_s = 60 * minutes
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to write a checkpoint."""
        return time.monotonic() - self._last >= self.interval_s

    def write(self, progress: Mapping[str, Any], tensors: Mapping[str, Tensor], states: Sequence[RandomStates]) -> None:
        """Write a checkpoint and remove all but the newest ones.

        Args:
            progress: the fields of `TrainingState` that training knows; the others are filled in here.
            tensors: named tensors on any device, see `training_tensors`.
            states: states of the random number generators in each process.

        Raises:
            UserError: the checkpoint cannot be written.
        """
        self._last = time.monotonic()  # where it cannot be written, the next try is as far away
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        state = TrainingState(
            **progress,
            spec_hash=self.spec_hash,
            python_rng=[(version, list(words), cached) for version, words, cached in (own.python for own in states)],
            numpy_rng=[(name, words.tolist(), *rest) for name, words, *rest in (own.numpy for own in states)],
            tensors_sha256=hashlib.sha256(content).hexdigest(),
        )
        final = self.folder / f"step-{len(state.measured.steps):08d}"
        temporary = self.folder / f".{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            write_atomic(temporary / TENSORS_FILE, content)
            write_atomic(temporary / STATE_FILE, state.model_dump_json())
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        except (UserError, OSError) as error:
            shutil.rmtree(temporary, ignore_errors=True)  # give its room back to what is written later
            if isinstance(error, OSError):
                raise UserError(f"{final}: cannot be written ({error.strerror})") from error
            raise
        # Those of later steps could not be used, or training would have gone on from them.
        later = [folder for folder in self._found() if folder.name > final.name]
        for unused in (*later, *self._found()[len(later) + KEPT :]):
            shutil.rmtree(unused, ignore_errors=True)

    def latest(self, on_damage: Callable[[str], None]) -> tuple[TrainingState, dict[str, Tensor]] | None:
        """Return the newest checkpoint that can be used, or None.

        Args:
            on_damage: called with one line about each newer checkpoint that cannot be used.
        """
        for folder in self._found():
            try:
                return self._read(folder)
            except DamagedCheckpointError as error:
                on_damage(f"{folder}: damaged checkpoint ({error}); using the one before it, if there is one")
        return None

    def remove(self) -> None:
        """Remove all checkpoints of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _found(self) -> list[Path]:
        """Return the folders of whole checkpoints, the newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _read(self, folder: Path) -> tuple[TrainingState, dict[str, Tensor]]:
        try:
            state = TrainingState.model_validate_json(read_file(folder / STATE_FILE))
            content = read_file(folder / TENSORS_FILE, LARGEST_TENSORS)
        except OSError as error:
            raise DamagedCheckpointError(f"{error.filename}: {error.strerror}") from error
        except ValidationError as error:
            raise DamagedCheckpointError(f"{STATE_FILE}: {first_error(error)}") from error
        if state.spec_hash != self.spec_hash:
            raise DamagedCheckpointError(f"it belongs to the run {state.spec_hash}")
        if hashlib.sha256(content).hexdigest() != state.tensors_sha256:
            raise DamagedCheckpointError(f"{TENSORS_FILE}: its content has another hash than {STATE_FILE} states")
        try:
            return state, load(content)
        except SafetensorError as error:
            raise DamagedCheckpointError(f"{TENSORS_FILE}: {first_line(error)}") from error


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def training_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, epoch_rng: Tensor, states: Sequence[RandomStates]
) -> dict[str, Tensor]:
    """Return the tensors that training goes on from.

    Args:
        model: the model; its trained parameters are the adapter.
        optimizer: the fused AdamW over these parameters.
        epoch_rng: state of the generator of the data order, from before the current epoch.
        states: states of the random number generators in each process.
    """
    found = {"rng.epoch": epoch_rng}
    for rank, own in enumerate(states):
        found[f"rng.{rank}.torch"] = own.torch
        if own.cuda is not None:
            found[f"rng.{rank}.cuda"] = own.cuda
    for name, parameter in trained_parameters(model).items():
        found[f"adapter.{name}"] = parameter
        found |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    return found


def restore_training(
    state: TrainingState,
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int = 0,
) -> None:
    """Put training back to where a checkpoint was written.

    Args:
        state, tensors: the checkpoint.
        model: the model, as it was built.
        optimizer: the fused AdamW over its trained parameters, before its first step.
        rank: number of this process. A process that was not there when the checkpoint was written keeps its own random
            states, so training with more processes than before goes on with other random numbers.

    Raises:
        UserError: the checkpoint does not fit the model.
    """
    named = trained_parameters(model)
    saved = {name.removeprefix("adapter.") for name in tensors if name.startswith("adapter.")}
    if saved != named.keys() or any(tensors[f"adapter.{name}"].shape != p.shape for name, p in named.items()):
        raise UserError(f"run {state.spec_hash}: its checkpoint does not fit the method; remove its unfinished/ folder")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"adapter.{name}"])
            prefix = f"optimizer.{name}."
            optimizer.state[parameter] = {
                key.removeprefix(prefix): value.to(parameter.device)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
    if f"rng.{rank}.torch" not in tensors:
        return
    version, words, cached = state.python_rng[rank]
    name, numpy_words, *rest = state.numpy_rng[rank]
    RandomStates(
        python=(version, tuple(words), cached),
        numpy=(name, np.array(numpy_words, dtype=np.uint32), *rest),
        torch=tensors[f"rng.{rank}.torch"],
        cuda=tensors.get(f"rng.{rank}.cuda"),
    ).restore()
