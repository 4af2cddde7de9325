"""The options of `run`, and the backbone, the data and the runs that they ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.backbone.machine import Machine, resolve_machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec, resolve_spec
from harness.config.recipes import DEFAULT_METHODS
from harness.errors import UserError
from harness.processes import shards
from harness.run.executor_choice import LOCAL
from harness.run.progress import LOG_SECONDS
from harness.run.schedule import with_steps
from harness.streams import Say
from harness.tasks.contract import DataOptions, Task
from harness.tasks.facts import TaskFacts


@dataclass(frozen=True)
class RunOptions:
    """The options of `run`, as its help describes them, with the same defaults."""

    methods: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()
    model: str = "tiny"
    task: str = "scienceqa"
    seeds: tuple[int, ...] = (0,)
    data_root: Path | None = None
    offline: bool = False
    llm: str | None = None
    clip: str | None = None
    weights: str = "pretrained"
    quantize: str | None = None
    limit: int | None = None
    epochs: float | None = None
    steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    results: Path = Path("results")
    skip_bad_images: bool = False
    full: bool = False
    shard: tuple[int, int] = (1, 1)
    force: bool = False
    dry_run: bool = False
    format: str = "markdown"
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    micro_batch: int | None = None
    workers: int | None = None
    log_seconds: float = LOG_SECONDS
    eval_every: int = 0
    tracker: str = ""
    protocol: str = "uniform"
    jobs: int | None = None
    threads: int | None = None
    executor: str = LOCAL
    submitit: Mapping[str, Any] = field(default_factory=dict)


def require_one_length(options: RunOptions) -> None:
    """Check that `--steps` alone says how long training is, if it is given.

    Raises:
        UserError: `--epochs` or `--set` says so, too.
    """
    others = [f"--set {key}" for key in options.settings if key.rpartition(".")[2] == "epochs"]
    if options.epochs is not None:
        others.insert(0, "--epochs")
    if options.steps is not None and others:
        raise UserError(f"--steps and {others[0]}: give one of them, not both")


def require_accuracy(options: RunOptions, facts: TaskFacts) -> None:
    """Check that validation during training gives an accuracy, if it is asked for.

    Args:
        options: the options.
        facts: what is known of their task.

    Raises:
        UserError: the task, or random weights, have no accuracy.
    """
    if options.eval_every and facts.answers is None:
        raise UserError(f"--eval-every: {options.task} has no right answers; leave it out")
    if options.eval_every and options.weights == "random":
        raise UserError("--eval-every: random weights have no accuracy; leave it out")


def backbone(options: RunOptions) -> tuple[BackboneSpec, Machine]:
    """Return which backbone the options ask for, and the device and dtype of a run.

    Raises:
        UserError: there is no such backbone, device or dtype, or its own data is declared as the full benchmark.
    """
    spec = resolve_spec(options.model, options.llm, options.clip, options.quantize)
    if options.full and options.data_root is None and spec.packaged:
        raise UserError("--full: the small world is not the full benchmark; leave it out, or give --data-root")
    return spec, resolve_machine(options.device, options.dtype, options.weights, is_here=options.executor == LOCAL)


def data_options(options: RunOptions, say: Say) -> DataOptions:
    """Return which data the options ask for.

    Args:
        options: the options.
        say: called with a line for the user.
    """
    return DataOptions(options.data_root, options.limit, options.skip_bad_images, options.full, say)


def plans_of(options: RunOptions, spec: BackboneSpec, machine: Machine) -> list[RunPlan]:
    """Return the runs that the options ask for, those of `--shard` alone.

    Args:
        options: the options.
        spec: their backbone.
        machine: where the runs are made. On a GPU, training steps are replayed as CUDA graphs by default.

    Raises:
        UserError: a name or a value is not allowed.
    """
    names = options.methods or DEFAULT_METHODS
    overrides = Overrides(options.epochs, options.settings, options.protocol)
    part, parts = options.shard
    plans = plan_runs(names, options.ablations, options.seeds, spec, options.task, overrides)[part - 1 :: parts]
    if machine.device.type == "cuda" and spec.quantize is None and shards() == 1:
        return [_captured(plan) for plan in plans]
    return plans


def _captured(plan: RunPlan) -> RunPlan:
    """Return the plan with its training steps captured, unless its settings say otherwise or exclude it."""
    recipe = plan.recipe
    if recipe.gradient_checkpointing or "captured" in recipe.model_fields_set:
        return plan
    return replace(plan, recipe=recipe.model_copy(update={"captured": True}))


def no_runs(options: RunOptions) -> str:
    """Return the line that says why there is no run to make."""
    return f"--shard {options.shard[0]}/{options.shard[1]}: there are fewer runs than parts"


def shortened(plans: Sequence[RunPlan], options: RunOptions, task: Task) -> list[RunPlan]:
    """Return the plans with the length that `--steps` gives; without `--steps`, return them unchanged.

    Args:
        plans: the runs.
        options: the options that they are of.
        task: the task, which has the number of training examples.

    Raises:
        UserError: the warm-up of `--set` is longer than the training.
    """
    if options.steps is None or not plans:
        return list(plans)
    num_examples = len(task.train_examples(plans[0].recipe))
    return [with_steps(plan, options.steps, num_examples, options.settings) for plan in plans]
