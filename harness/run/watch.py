"""What happens between two optimiser steps: progress, energy, validation, the tracker. None of it changes training."""

import time
from collections.abc import Callable

from torch import nn

from harness.records import StepMeasured, Validation, samples_per_s
from harness.run.energy import EnergyMeter
from harness.run.measured import TrainResult
from harness.run.progress import Progress
from harness.run.random_states import RandomStates
from harness.run.tracker import Tracker

VALIDATED = 256
"""Largest number of problems that a validation during training answers."""
_METER_S = 1.0
"""Seconds between two readings of the energy, because a reading may take a millisecond."""


class Watch:
    """Is called after every optimiser step, with what it measured; and then `validate_if_due`.

    Args:
        progress: shows loss, learning rate and accuracy.
        result: what training has measured; validations and energy are added to it.
        meter: reads the GPU's energy.
        tracker: receives every step.
        every: optimiser steps between two validations; 0 never validates.
        validate: returns the accuracy in percent and the number of problems.
        model: what `validate` evaluates.
    """

    def __init__(
        self,
        progress: Progress,
        result: TrainResult,
        meter: EnergyMeter,
        tracker: Tracker,
        every: int,
        validate: Callable[[], tuple[float, int]],
        model: nn.Module,
    ) -> None:
        self._progress, self._result, self._meter, self._tracker = progress, result, meter, tracker
        self._every, self._validate, self._model = every, validate, model
        self._joules_at_start = meter.joules()
        self._joules_before: float | None = None
        self._read_at: float | None = None

    def __call__(self, step: StepMeasured) -> None:
        """Report a step.

        Args:
            step: what it measured.
        """
        if self._read_at is None:
            # Steps of an earlier process whose energy nobody read leave the sum unknown.
            self._joules_before = self._result.joules if len(self._result.steps) > 1 else 0.0
        if self._read_at is None or time.monotonic() - self._read_at >= _METER_S:
            self.read_energy()
        rate = samples_per_s([step])
        values = {"loss": step.loss, "learning_rate": step.learning_rate}
        values |= {} if rate is None else {"samples_per_s": rate}
        self._progress.advance(step.step, f"loss {step.loss:.3f}, lr {step.learning_rate:.2e}")
        self._tracker.log(values, step.step)

    def validate_if_due(self) -> None:
        """Validate after the last step, if it is one of those that are validated and has not been yet."""
        step, validations = len(self._result.steps), self._result.validations
        if not (self._every and step) or step % self._every or (validations and validations[-1].step == step):
            return
        found = self._validated(step)
        self._progress.say(f"step {step}: validation accuracy {found.accuracy:.2f} % of {found.n} problems")
        self._tracker.log({"validation_accuracy": found.accuracy}, step)

    def read_energy(self) -> None:
        """Add the energy since the last reading."""
        now = self._meter.joules()
        if now is not None and self._joules_at_start is not None and self._joules_before is not None:
            self._result.joules = self._joules_before + now - self._joules_at_start
        self._read_at = time.monotonic()

    def _validated(self, step: int) -> Validation:
        """Validate, and put the model's mode and all random number generators back as they were."""
        begun, states, mode = time.perf_counter(), RandomStates.now(), self._model.training

        def put_back() -> None:
            self._model.train(mode)
            states.restore()

        try:
            accuracy, n = self._validate()
            put_back()
        except BaseException:
            # The checkpoint of a stopped run must hold the states of training. A stop may also come in `put_back`.
            put_back()
            raise
        found = Validation(step=step, accuracy=accuracy, n=n)
        self._result.validations.append(found)
        seconds = time.perf_counter() - begun
        self._result.validation_s += seconds
        self._progress.validated(seconds)
        return found
