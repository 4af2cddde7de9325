"""What training has measured so far. Checkpoints keep it, so that it survives an interruption."""

from dataclasses import dataclass, field

from harness.records import PeakMemory, StepMeasured, Validation


@dataclass
class TrainResult:
    """What training has measured.

    Attributes:
        steps: every optimiser step, in order.
        total_s: seconds of the whole loop, without what is done between steps to report them.
        epochs: passes over the training examples, with fractions.
        micro_batch: samples per forward pass; None before training has begun.
        validations: accuracy on the validation split, where it was asked for.
        validation_s: seconds spent on it.
        joules: energy of the GPU in training; None if it is not reported, or was not from the first step on.
        peak: peak memory up to the last step, the largest one of the processes that trained after one another.
        processes: number of processes that made the last step together; None before training has begun.
        sharded: whether these divided the frozen decoder layers among them.
    """

    steps: list[StepMeasured] = field(default_factory=list)
    total_s: float = 0.0
    epochs: float = 0.0
    micro_batch: int | None = None
    validations: list[Validation] = field(default_factory=list)
    validation_s: float = 0.0
    joules: float | None = None
    peak: PeakMemory = field(default_factory=PeakMemory)
    processes: int | None = None
    sharded: bool | None = None

    @property
    def losses(self) -> list[float]:
        """The loss of each optimiser step."""
        return [step.loss for step in self.steps]

    @property
    def step_s(self) -> list[float]:
        """The seconds of each optimiser step."""
        return [step.seconds for step in self.steps]
