"""How fast a run goes, and how long it and the sweep still take.

Everything here is an estimate. None of it enters a record.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

WINDOW_S = 60.0
"""The rate of a phase is that of its last minute."""
VALIDATING = "validating"
"""Under this name, the seconds of a validation are kept beside the seconds per sample of each phase."""

Clock = Callable[[], float]


class RunPace:
    """The pace of one run.

    Args:
        known: seconds per sample of each phase and per validation, as earlier runs of the sweep took them.
        clock: returns a time in seconds; another one for tests.
    """

    def __init__(self, known: Mapping[str, float], clock: Clock = time.monotonic) -> None:
        self._known, self._clock = known, clock
        self._phases: Mapping[str, int] = {}
        self._phase: str | None = None
        self._total = self._every = self._validations = 0
        self._validation_s: list[float] = []
        self._window: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None
        self.seconds_per_sample: dict[str, float] = {}
        self.begun = clock()

    def plan(self, phases: Mapping[str, int]) -> None:
        """Say which phases the run has.

        Args:
            phases: number of samples of each phase, in their order.
        """
        self._phases = phases

    def start(self, phase: str, total: int, validated_every: int = 0) -> None:
        """Begin a phase of `total` steps, with a validation after every `validated_every` of them, or with none."""
        self._phase, self._total, self._every, self._first = phase, total, validated_every, None
        if validated_every:
            self._validations = total // validated_every
        self._window.clear()

    def advance(self, done: int) -> None:
        """Note that `done` steps of the phase are finished. A phase that is resumed begins with more than one."""
        now = self._clock()
        self._window.append((now, done))
        if self._first is None:
            self._first = now, done
        while len(self._window) > 2 and self._window[1][0] <= now - WINDOW_S:
            self._window.popleft()
        if self._phase is not None and (spent := self._seconds_per_step(self._first)) is not None:
            self.seconds_per_sample[self._phase] = spent / self._samples_per_step

    def validated(self, seconds: float) -> None:
        """Note that a validation took `seconds`, which are not those of the steps before and after it."""
        self._validation_s.append(seconds)
        self.seconds_per_sample[VALIDATING] = sum(self._validation_s) / len(self._validation_s)
        self._window = deque((when + seconds, done) for when, done in self._window)
        if self._first is not None:
            self._first = self._first[0] + seconds, self._first[1]

    @property
    def samples_per_s(self) -> float | None:
        """Samples per second in the last minute; None before the second step."""
        spent = self._seconds_per_step(self._window[0]) if self._window else None
        return self._samples_per_step / spent if spent else None

    @property
    def left_s(self) -> float | None:
        """Estimated seconds that the rest of the run takes; None while nothing is known.

        A phase that no run has reached yet is taken to be as fast, per sample, as the present one. Validations count
        as soon as one was made.
        """
        present = self.samples_per_s
        if self._phase is None or present is None:
            return None
        names = list(self._phases)
        behind = names[names.index(self._phase) + 1 :] if self._phase in self._phases else []
        done = self._window[-1][1]
        rest = (self._total - done) * self._samples_per_step / present
        if self._every:
            # The one that follows the last step has not been made yet.
            rest += self._validating_s(self._validations - max(0, done - 1) // self._every)
        return rest + sum(self._phases[name] * self._known.get(name, 1 / present) for name in behind)

    @property
    def whole_s(self) -> float | None:
        """Estimated seconds of all phases of a run like this one; None while nothing is known."""
        present = self.samples_per_s
        rates = {**self._known, **self.seconds_per_sample}
        if present is None and not self._phases.keys() <= rates.keys():
            return None
        phases_s = sum(samples * rates.get(name, 1 / (present or 1)) for name, samples in self._phases.items())
        return phases_s + self._validating_s(self._validations)

    def _validating_s(self, validations: int) -> float:
        """Return the estimated seconds of a number of validations; 0 while none was made."""
        return validations * self.seconds_per_sample.get(VALIDATING, self._known.get(VALIDATING, 0.0))

    @property
    def _samples_per_step(self) -> float:
        return self._phases.get(self._phase or "", self._total) / max(1, self._total)

    def _seconds_per_step(self, since: tuple[float, int]) -> float | None:
        """Return the mean seconds per step since a step; None if no step was made since then, or in no time."""
        (begun, before), (now, done) = since, self._window[-1]
        return (now - begun) / (done - before) if done > before and now > begun else None


@dataclass
class SweepPace:
    """The pace of a sweep.

    Attributes:
        pending: runs that are not begun.
        known: seconds per sample of each phase and per validation, as the last run that measured it took them.
    """

    pending: int
    known: dict[str, float] = field(default_factory=dict)

    def begin(self, clock: Clock = time.monotonic) -> RunPace:
        """Begin a run, and return its pace."""
        self.pending -= 1
        return RunPace(self.known, clock)

    def skip(self) -> None:
        """Note that a run need not be made."""
        self.pending -= 1

    def repeat(self) -> None:
        """Note that a run which has begun is begun again."""
        self.pending += 1

    def end(self, run: RunPace) -> None:
        """Note that a run has ended."""
        self.known.update(run.seconds_per_sample)

    def left_s(self, running: Iterable[RunPace], side_by_side: int = 1) -> float | None:
        """Return the estimated seconds that the rest of the sweep takes; None while nothing is known.

        Args:
            running: the pace of every run that is being made.
            side_by_side: how many runs are made at the same time.
        """
        rests = [run.left_s for run in running]
        wholes = [run.whole_s for run in running]
        known_rests = [rest for rest in rests if rest is not None]
        known_wholes = [whole for whole in wholes if whole is not None]
        if not known_rests or not known_wholes:
            return None
        one = sum(known_wholes) / len(known_wholes)
        # A run without an estimate of its own is taken to be as long as the others.
        rests_s = [one if rest is None else rest for rest in rests]
        return max(*rests_s, (sum(rests_s) + self.pending * one) / side_by_side)
