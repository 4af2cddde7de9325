"""The typed record of one run. All tables are built from records alone.

A record is one JSON file; the predictions and the history of the run are stored next to it. A number that is not
available is null. The reason is in `missing` (field path -> reason) or in the section's own `reason`; for a run that
did not complete, it is in `error`.

The docstring of a field is its description in results/schema.json and in the field guide of results/README.md.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from harness.escape import is_visible, path_part
from harness.records.fields import (
    REASON,
    Count,
    Label,
    MaybeCount,
    Moment,
    Name,
    Seconds,
    Section,
    Seed,
    SpecHash,
    Text,
    unexplained,
)
from harness.records.sections import (
    BackboneInfo,
    Data,
    Energy,
    Environment,
    Git,
    Loss,
    Metric,
    Parameters,
    ParseFailures,
    PeakMemory,
    Sample,
    Times,
    Truncated,
)
from harness.records.timing import Speed

SCHEMA_VERSION: Literal[1] = 1
Kind = Literal["train", "oracle", "speed"]

# The sections that only some kinds of run measure. A section that the kind does not measure is null and needs no
# reason. A section that it does measure may be null only with a reason.
SECTIONS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"parse_failures", "truncated", "parameters", "loss", "steps", "epochs"}),
    "oracle": frozenset({"parse_failures", "truncated"}),
    "speed": frozenset({"parameters", "speed"}),
}
_ALL_SECTIONS: frozenset[str] = frozenset().union(*SECTIONS.values())


NOT_JSON = "not_json"
"""Type of the error of a config that JSON cannot express, such as one with an infinite number."""


def _plain(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not is_visible(config):
        raise ValueError("contains control characters")
    try:
        spec_hash(config)
    except ValueError as error:
        reason = {"reason": str(error)}
        raise PydanticCustomError(NOT_JSON, "cannot be written as JSON ({reason})", reason) from error
    return config


class Record(Section):
    """One run. The description of each field is in results/schema.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this format; it is raised when a field changes its meaning."""
    kind: Kind = "train"
    """What was run: training and evaluation, evaluation of the oracle, or timing. Decides which sections are filled."""
    spec_hash: SpecHash
    """Hash of what was asked for: method, settings, model, task, data, weights, dtype and seed. Two runs with the same
    hash differ at most in rounding, by what `environment` says (device, threads, versions, deterministic algorithms),
    and in the random numbers of dropout, if their steps are divided into other passes or among other processes."""
    created: Moment = Field(default_factory=lambda: datetime.now(UTC))
    """Time at which the record was made, in UTC."""
    method: Name
    """Registry name of the method; `oracle` for the frozen language model that gets each image in words."""
    variant: Name | None = None
    """Name of the ablation; null for the method itself."""
    label: Label = Field(default_factory=lambda data: default_label(data["method"], data["variant"]))
    """Short name of method and ablation, used for the folder."""
    model: Annotated[Text, Field(min_length=1)]
    """Preset (such as `tiny`, `7b` or `13b`), or the names of the language model and vision tower used instead."""
    task: Name
    """Name of the task, `scienceqa` or `coco`."""
    seed: Seed
    """Seed of the initial weights, the order of the examples and dropout."""
    run_id: str = Field(default_factory=lambda data: make_run_id(data))
    """Unique name of the run, made of task, model, label, seed and spec hash."""
    config: Annotated[dict[str, JsonValue], AfterValidator(_plain)]
    """All settings of the method and of the run, after defaults and options are applied; without the seed."""
    config_hash: str = Field(default_factory=lambda data: spec_hash(data["config"]))
    """Hash of `config`, shared by runs that differ only in their seed."""
    tuning: Text = ""
    """Where the values of the recipe come from, and which values were tried in a search; empty where nothing was
    trained."""
    data: Data
    """Data set that the run used."""
    backbone: BackboneInfo
    """Frozen language model and vision tower."""
    metrics: dict[Text, Metric] = Field(default_factory=dict)
    """Result of each column: ScienceQA's nine accuracies, or the caption scores."""
    parse_failures: Annotated[ParseFailures | None, REASON] = None
    """How many answers could not be read."""
    truncated: Annotated[Truncated | None, REASON] = None
    """How many texts were cut because they were too long."""
    samples: list[Sample] = Field(default_factory=list)
    """Captions of the first images of the evaluation split, kept for a reader; empty for tasks without captions."""
    parameters: Annotated[Parameters | None, REASON] = None
    """Number of trainable and of all parameters."""
    times_s: Times = Times()
    """Seconds spent in each part of the run."""
    energy_joules: Energy = Energy()
    """Energy of the GPU in each part of the run."""
    steps: MaybeCount = None
    """Number of optimiser steps."""
    epochs: Annotated[Seconds | None, REASON] = None
    """Number of passes over the training split."""
    micro_batch: Annotated[Count, Field(ge=1)] | None = None
    """Samples per forward pass in training, at its end; the division of an optimiser step into forward passes changes
    its memory, not its loss. Null where nothing was trained, or where not reported."""
    loss: Annotated[Loss | None, REASON] = None
    """Training loss at the beginning and the end."""
    speed: Annotated[Speed | None, REASON] = None
    """Times per batch; only in records of kind `speed`."""
    peak_memory_bytes: PeakMemory = PeakMemory()
    """Peak memory of the run."""
    environment: Environment
    """Software versions and hardware."""
    git: Git
    """Version of the project's code."""
    status: Literal["completed", "failed", "interrupted"] = "completed"
    """How the run ended."""
    error: Text | None = None
    """What stopped the run, in one line; null for a completed run."""
    failed_step: Count | None = None
    """Optimiser step at which training failed; null where it did not fail."""
    missing: dict[Text, Text] = Field(default_factory=dict)
    """Why a field is null, by the path of the field; a path also covers every field below it."""

    @property
    def protocol(self) -> str:
        """The protocol of the run, `uniform` or `published`, as in its config."""
        return str(self.recipe.get("protocol", "uniform"))

    @property
    def eval_split(self) -> str:
        """The split that the run was evaluated on, as in its config."""
        return str(self.recipe.get("eval_split", "test"))

    @property
    def recipe(self) -> Mapping[str, JsonValue]:
        """The settings of training and evaluation, `config.train`; empty where the record has none."""
        train = self.config.get("train")
        return train if isinstance(train, dict) else {}

    @field_serializer("created")
    def _utc(self, created: datetime) -> str:
        return created.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    @model_validator(mode="after")
    def _names_and_hashes(self) -> Self:
        if "seed" in self.config:
            raise ValueError("config: contains `seed`, which has its own field")
        if self.config_hash != spec_hash(self.config):
            raise ValueError("config_hash: is not the hash of `config`")
        if self.run_id != make_run_id(self.__dict__):
            raise ValueError(f"run_id: should be {make_run_id(self.__dict__)!r}")
        return self

    @model_validator(mode="after")
    def _ending(self) -> Self:
        if (self.status == "completed") != (self.error is None):
            raise ValueError("error: must be set if, and only if, the run did not complete")
        if self.status == "completed" and self.failed_step is not None:
            raise ValueError("failed_step: must be null in a completed run")
        return self

    @model_validator(mode="after")
    def _random_weights_have_no_accuracy(self) -> Self:
        valued = sorted(name for name, metric in self.metrics.items() if metric.value is not None)
        if self.backbone.weights == "random" and valued:
            raise ValueError(f"metrics.{valued[0]}: must be null, because random weights have no accuracy")
        return self

    @model_validator(mode="after")
    def _every_null_has_a_reason(self) -> Self:
        unused = _ALL_SECTIONS - SECTIONS[self.kind]
        for section in sorted(unused):
            if getattr(self, section) is not None:
                raise ValueError(f"{section}: must be null, because a run of kind {self.kind!r} does not measure it")
        nulls = [path for path in unexplained(self) if path.split(".")[0] not in unused]
        for path in self.missing:
            if not any(_covers(path, null) for null in nulls):
                raise ValueError(f"missing.{path}: there is no such field, or it is not null")
        if self.status == "completed":
            for null in nulls:
                if not any(_covers(path, null) for path in self.missing):
                    raise ValueError(f"{null}: is null, so `missing` must say why")
        return self


def default_label(method: str, variant: str | None) -> str:
    """Return the label of a method or of its ablation, such as `memvp` or `dehvf-keys_only`."""
    return method if variant is None else f"{method}-{variant}"


def make_run_id(fields: Mapping[str, Any]) -> str:
    """Return the name of a run, made from the record's fields `task`, `model`, `label`, `seed` and `spec_hash`."""
    names = (fields["task"], path_part(fields["model"]), fields["label"], f"seed{fields['seed']}")
    return "-".join((*names, fields["spec_hash"]))


def spec_hash(spec: Mapping[str, JsonValue]) -> str:
    """Return the first 16 hex digits of the SHA-256 of `spec` as canonical JSON (sorted keys, no spaces, UTF-8).

    The spec of a run contains everything that was asked for, such as method, variant, model, task, seed,
    config, data hash and weight hash. Two runs with the same hash are therefore the same run.

    Raises:
        ValueError: `spec` contains NaN or infinity.
        TypeError: `spec` contains a value that JSON cannot represent.
    """
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode("utf-8")).hexdigest()[:16]


def _covers(path: str, null: str) -> bool:
    return null == path or null.startswith(path + ".")
