"""What training has measured so far. Checkpoints keep it, so that it survives an interruption."""

from dataclasses import dataclass, field

from harness.records import Earlier, Maker, PeakMemory, StepMeasured, Validation


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
        maker: code and machine of the process that goes on with the run; None before it has begun.
        earlier: those of processes before it that differ.
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
    maker: Maker | None = None
    earlier: list[Earlier] = field(default_factory=list)

    def goes_on(self, maker: Maker) -> bool:
        """Note who goes on with the run, and return whether that is other code or another machine than before.

        Args:
            maker: code and machine of this process.
        """
        before, self.maker = self.maker, maker
        if before is None or before == maker:
            return False
        self.earlier.append(Earlier(steps=len(self.steps), **before.model_dump()))
        return True

    @property
    def losses(self) -> list[float]:
        """The loss of each optimiser step."""
        return [step.loss for step in self.steps]

    @property
    def step_s(self) -> list[float]:
        """The seconds of each optimiser step."""
        return [step.seconds for step in self.steps]
