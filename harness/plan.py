"""From options to the runs they ask for, fully resolved; nothing is loaded or trained here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.presets import BackboneSpec
from harness.recipes import (
    ORACLE,
    REFERENCES,
    TrainRecipe,
    apply_overrides,
    method_config,
    train_recipe,
)
from harness.records import default_label
from methods import UnknownMethodError, get_method, registry


@dataclass(frozen=True)
class RunPlan:
    """One run, resolved.

    Attributes:
        method: registry name, or `oracle`.
        variant: ablation; None for the method itself.
        config: the method's Config; None for the oracle.
        recipe: training settings.
        seed: of initialisation and data order.
    """

    method: str
    variant: str | None
    config: Any
    recipe: TrainRecipe
    seed: int

    @property
    def label(self) -> str:
        """`memvp`, `dehvf-keys_only`."""
        return default_label(self.method, self.variant)

    @property
    def is_oracle(self) -> bool:
        """Whether nothing is trained and images are told in words."""
        return self.method == ORACLE

    def resolved(self) -> dict[str, Any]:
        """The config as it goes into the record, without the seed."""
        config = {} if self.config is None else self.config.model_dump(mode="json")
        return {"method": config, "train": self.recipe.model_dump(mode="json")}


@dataclass(frozen=True)
class Overrides:
    """What the command line changes in a recipe."""

    epochs: float | None = None
    settings: Mapping[str, Any] | None = None


def plan_runs(
    methods: Sequence[str],
    ablations: Sequence[str],
    seeds: Sequence[int],
    spec: BackboneSpec,
    task: str,
    overrides: Overrides,
) -> list[RunPlan]:
    """Every run that the options ask for: methods × (itself or its ablations) × seeds.

    Args:
        methods: registry names, `all`, `blind`, `oracle`.
        ablations: empty: the methods themselves; `all` or names of ablations: these instead.
        seeds: the seeds; the oracle has no seed and runs once.
        spec: backbone, for the recipe.
        task: task, for the recipe.
        overrides: changes to every recipe.

    Raises:
        UserError: an unknown name or setting.
    """
    rows: list[tuple[str, str | None]] = []
    for name in _expand(methods):
        rows += _variants(name, ablations)
    plans = []
    for name, variant in dict.fromkeys(rows):
        for seed in [0] if name == ORACLE else seeds:
            plans.append(_plan(name, variant, seed, spec, task, overrides))
    return plans


def _expand(methods: Sequence[str]) -> list[str]:
    names: list[str] = []
    for name in methods:
        names += list(registry()) if name == "all" else [name]
    return names


def _variants(name: str, ablations: Sequence[str]) -> list[tuple[str, str | None]]:
    if name == ORACLE:
        return [(name, None)]
    if name in REFERENCES:
        return [REFERENCES[name]]
    if not ablations:
        return [(name, None)]
    known = getattr(_method(name), "ablations", {})
    return [(name, variant) for asked in ablations for variant in (known if asked == "all" else [asked])]


def _plan(
    name: str, variant: str | None, seed: int, spec: BackboneSpec, task: str, overrides: Overrides
) -> RunPlan:
    recipe = train_recipe(name, spec.name, task)
    settings = dict(overrides.settings or {})
    if name == ORACLE:
        trained_only = {key: value for key, value in settings.items() if key in TrainRecipe.model_fields}
        return RunPlan(name, None, None, apply_overrides(name, {}, recipe, (), trained_only)[1], seed)
    method = _method(name)
    fields = method_config(name, spec.name, variant)
    fields, recipe = apply_overrides(name, fields, recipe, tuple(method.Config.model_fields), settings)
    if overrides.epochs is not None:
        recipe = recipe.with_length(overrides.epochs)
    try:
        config = method.Config(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--set {'.'.join(map(str, first['loc']))}: {first['msg']} ({name})") from error
    return RunPlan(name, variant, config, recipe, seed)


def _method(name: str) -> Any:
    try:
        return get_method(name)
    except UnknownMethodError as error:
        raise UserError(f"--methods {name}: {error}; see `python -m harness methods`") from error
