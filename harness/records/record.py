"""The typed record of one run: the only thing that tables are built from, and the only writer of results/.

A record is one JSON file, beside it the run's predictions. A number that is missing is null, and `missing`
(field path -> reason) or the field's own `reason` says why; where a run did not complete, `error` does.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, field_serializer, model_validator

from harness.records.sections import (
    REASON,
    BackboneInfo,
    Count,
    Data,
    Environment,
    Git,
    Loss,
    MaybeCount,
    Metric,
    Name,
    Parameters,
    ParseFailures,
    PeakMemory,
    Sample,
    Seconds,
    Section,
    Speed,
    Times,
    Truncated,
    unexplained,
)

SCHEMA_VERSION: Literal[1] = 1
Kind = Literal["train", "oracle", "speed"]

# What each kind of run measures. A section outside its kind is null and needs no reason; one inside it does.
SECTIONS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"parse_failures", "truncated", "parameters", "loss", "steps", "epochs"}),
    "oracle": frozenset({"parse_failures", "truncated"}),
    "speed": frozenset({"parameters", "speed"}),
}
_ALL_SECTIONS: frozenset[str] = frozenset().union(*SECTIONS.values())


class Record(Section):
    """One run, whole. See each field's description in results/schema.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Raised when a field changes its meaning."""
    kind: Kind = "train"
    """What was run; decides which sections are filled."""
    spec_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Hash of everything that was asked for, seed included: `spec_hash(spec)`."""
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """When the record was made, UTC."""
    method: Name
    """Registry name of the method; `oracle` for the oracle."""
    variant: Name | None = None
    """Ablation; null: the method itself."""
    label: Name = Field(default_factory=lambda data: default_label(data["method"], data["variant"]))
    """Short name used for the folder."""
    model: str = Field(min_length=1)
    """Preset (`tiny`, `7b`, `13b`), or the names of the parts that stood in its place."""
    task: Name
    """`scienceqa` or `coco`."""
    seed: int
    """Seed of training."""
    run_id: str = Field(default_factory=lambda data: make_run_id(data))
    """Task, model, label, seed and spec hash in one name."""
    config: dict[str, JsonValue]
    """Resolved method config, recipe and data options; without the seed."""
    config_hash: str = Field(default_factory=lambda data: spec_hash(data["config"]))
    """Hash of `config`: runs that share it differ by seed only."""
    tuning: str = ""
    """Where the recipe's values come from, and what was searched; empty: nothing was trained."""
    data: Data
    """The data set."""
    backbone: BackboneInfo
    """The frozen model."""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    """Column -> result; ScienceQA's nine columns or the caption scores."""
    parse_failures: Annotated[ParseFailures | None, REASON] = None
    """How often no answer could be read."""
    truncated: Annotated[Truncated | None, REASON] = None
    """What was longer than the context and was cut."""
    samples: list[Sample] = Field(default_factory=list)
    """Captions kept to be looked at, of the first images of the evaluation split; empty for tasks without captions."""
    parameters: Annotated[Parameters | None, REASON] = None
    """Trainable and total counts."""
    times_s: Times = Times()
    """Where the time went, in seconds."""
    steps: MaybeCount = None
    """Optimiser steps done."""
    epochs: Annotated[Seconds | None, REASON] = None
    """Passes over the training split."""
    loss: Annotated[Loss | None, REASON] = None
    """Training loss."""
    speed: Annotated[Speed | None, REASON] = None
    """Seconds a batch, of kind `speed` only."""
    peak_memory_bytes: PeakMemory = PeakMemory()
    """Highest memory use."""
    environment: Environment
    """Versions and hardware."""
    git: Git
    """Which code."""
    status: Literal["completed", "failed", "interrupted"] = "completed"
    """How the run ended."""
    error: str | None = None
    """What stopped it, in one line."""
    failed_step: Count | None = None
    """The training step that failed, where one did."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Field path -> why it is null; a path covers everything below it."""

    @field_serializer("created")
    def _utc(self, created: datetime) -> str:
        return created.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    @model_validator(mode="after")
    def _names_and_hashes(self) -> Self:
        if "seed" in self.config:
            raise ValueError("config: holds `seed`, which has its own field")
        if self.config_hash != spec_hash(self.config):
            raise ValueError("config_hash: is not the hash of `config`")
        if self.run_id != make_run_id(self.__dict__):
            raise ValueError(f"run_id: should be {make_run_id(self.__dict__)!r}")
        return self

    @model_validator(mode="after")
    def _ending(self) -> Self:
        if (self.status == "completed") != (self.error is None):
            raise ValueError("error: a run that did not complete, and only such a run, has one")
        if self.status == "completed" and self.failed_step is not None:
            raise ValueError("failed_step: set on a completed run")
        return self

    @model_validator(mode="after")
    def _random_weights_have_no_accuracy(self) -> Self:
        valued = sorted(name for name, metric in self.metrics.items() if metric.value is not None)
        if self.backbone.weights == "random" and valued:
            raise ValueError(f"metrics.{valued[0]}: random weights have no accuracy; make it null")
        return self

    @model_validator(mode="after")
    def _every_null_has_a_reason(self) -> Self:
        unused = _ALL_SECTIONS - SECTIONS[self.kind]
        for section in sorted(unused):
            if getattr(self, section) is not None:
                raise ValueError(f"{section}: not measured by a run of kind {self.kind!r}")
        nulls = [path for path in unexplained(self) if path.split(".")[0] not in unused]
        for path in self.missing:
            if not any(_covers(path, null) for null in nulls):
                raise ValueError(f"missing.{path}: no such field, or it is not null")
        if self.status == "completed":
            for null in nulls:
                if not any(_covers(path, null) for path in self.missing):
                    raise ValueError(f"{null}: is null and `missing` does not say why")
        return self


def default_label(method: str, variant: str | None) -> str:
    """`memvp`, or `dehvf-keys_only` for an ablation."""
    return method if variant is None else f"{method}-{variant}"


def make_run_id(fields: Mapping[str, Any]) -> str:
    """Name of a run from the record's fields `task`, `model`, `label`, `seed`, `spec_hash`."""
    names = (fields["task"], slug(fields["model"]), fields["label"], f"seed{fields['seed']}")
    return "-".join((*names, fields["spec_hash"]))


def spec_hash(spec: Mapping[str, JsonValue]) -> str:
    """First 16 hex digits of the SHA-256 of `spec` as canonical JSON (keys sorted, no spaces, UTF-8).

    The spec of a run holds whatever can change its outcome: method, variant, model, task, seed, config, data
    hash, weight hash, limit; so that no run is ever taken for another.

    Raises:
        ValueError: NaN or infinity in it.
        TypeError: a value that JSON does not know.
    """
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode("utf-8")).hexdigest()[:16]


def slug(name: str) -> str:
    """`name` as one harmless path component."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip(".-") or "unnamed"


def _covers(path: str, null: str) -> bool:
    return null == path or null.startswith(path + ".")
