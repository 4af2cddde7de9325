"""From options to the runs that they ask for, with every setting resolved. Nothing is loaded or trained here."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.lookup import expand, named_method
from harness.config.overrides import apply_overrides
from harness.config.presets import BackboneSpec
from harness.config.recipe import TrainRecipe, recipe_class
from harness.config.recipes import ORACLE, REFERENCES, method_config, published_settings, train_recipe
from harness.errors import UserError, first_error
from harness.records import Record, default_label


@dataclass(frozen=True)
class RunPlan:
    """One run with all its settings.

    Attributes:
        method: registry name of the method, or `oracle`.
        variant: name of the ablation; None for the method itself.
        config: the method's Config; None for the oracle.
        recipe: training settings.
        seed: seed of initialisation and data order.
    """

    method: str
    variant: str | None
    config: BaseModel | None
    recipe: TrainRecipe
    seed: int

    @property
    def label(self) -> str:
        """The name of the run's row: the method, or METHOD-ABLATION."""
        return default_label(self.method, self.variant)

    @property
    def name(self) -> str:
        """What the run is called in messages: its label and its seed."""
        return f"{self.label} seed {self.seed}"

    @property
    def is_oracle(self) -> bool:
        """Whether this is the reference run that trains nothing and gets images as descriptions in words."""
        return self.method == ORACLE

    def resolved(self) -> dict[str, Any]:
        """Return the settings that go into the record and its hash: all that changes the outcome, except the seed."""
        config = {} if self.config is None else self.config.model_dump(mode="json")
        return {"method": config, "train": self.recipe.model_dump(mode="json", exclude={"tuning"})}


@dataclass(frozen=True)
class Overrides:
    """What the command line changes in every recipe.

    Attributes:
        epochs: value of `--epochs`; None keeps the recipe's.
        settings: the pairs of `--set`.
        protocol: value of `--protocol`.
    """

    epochs: float | None = None
    settings: Mapping[str, Any] | None = None
    protocol: str = "uniform"


def plan_runs(
    methods: Sequence[str],
    ablations: Sequence[str],
    seeds: Sequence[int],
    spec: BackboneSpec,
    task: str,
    overrides: Overrides,
) -> list[RunPlan]:
    """Return every run that the options ask for: each method, or each of its ablations, with each seed.

    Args:
        methods: registry names, `all`, `blind` or `oracle`.
        ablations: names of ablations to run instead of the methods, or `all`; empty runs the methods themselves.
        seeds: the seeds. The oracle has no seed and runs once.
        spec: the backbone; the recipe depends on it.
        task: the task; the recipe depends on it.
        overrides: changes to every recipe.

    Raises:
        UserError: a name or a setting is unknown, or a value is not allowed.
    """
    _check_seeds(seeds)
    rows = _rows(expand(methods), ablations)
    names = {name for name, _ in rows}
    _check_owners(overrides.settings or {}, names)
    if overrides.protocol == "published" and (references := [name for name in methods if name in REFERENCES]):
        raise UserError(
            f"--protocol published: {', '.join(references)}: a reference row has no published protocol; leave it out"
        )
    if overrides.protocol == "published" and (overrides.settings or {}).get("sampling_seed") is not None:
        _check_sampling(names, task)
    trained_fields = [field for name, _ in rows if name != ORACLE for field in named_method(name).Config.model_fields]
    plans = []
    for name, variant in rows:
        if name == ORACLE:
            plans.append(_oracle_plan(spec, task, overrides, trained_fields))
        else:
            plans += [_plan(name, variant, seed, spec, task, overrides) for seed in seeds]
    return plans


def recorded_plan(record: Record) -> RunPlan:
    """Return the plan of a recorded run, with the settings of the record, whatever the recipes are now.

    Raises:
        UserError: the method is not known here, or its settings are not those of this version of the code.
    """
    settings = {name: record.config.get(name) or {} for name in ("method", "train")}
    try:
        recipe = recipe_class(record.task).model_validate({**_dict(settings["train"]), "tuning": record.tuning})
        config = None
        if record.method != ORACLE:
            config = named_method(record.method).Config.model_validate(settings["method"])
    except ValidationError as error:
        raise UserError(
            f"{record.run_id}: config: {first_error(error)}; the record is of another version of the code: check that "
            "version out"
        ) from error
    return RunPlan(record.method, record.variant, config, recipe, record.seed)


def _dict(section: object) -> dict[str, Any]:
    return section if isinstance(section, dict) else {}


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("--seeds: give at least one seed, e.g. 0,1,2")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seeds {seed}: out of range; give numbers from 0 to 2^32 - 1")


def _check_owners(settings: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that every `METHOD.key` names a method of this run."""
    names = sorted(names)
    for key in settings:
        owner, dot, _ = key.rpartition(".")
        if dot and owner not in names:
            raise UserError(
                f"--set {key}: {owner} is not a method of this run; the run has {', '.join(names)}; name one"
            )


def _check_sampling(names: Iterable[str], task: str) -> None:
    """Check that `sampling_seed` is not given to several methods of which only some generate their answers.

    Raises:
        UserError: it is, or a method has no published protocol.
    """
    generates = {name: published_settings(name, task).get("scoring") == "generate" for name in sorted(names)}
    keys = [f"{name}.sampling_seed" for name, own in generates.items() if own]
    others = [name for name, own in generates.items() if not own]
    if keys and others:
        raise UserError(
            "--set sampling_seed: is for a method whose answers are generated, which is not so for "
            f"{', '.join(others)}; give --set {' and --set '.join(keys)} instead"
        )


def _rows(names: Sequence[str], ablations: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the method and variant of every row, without repeats. Methods skip ablations that they do not have."""
    rows: list[tuple[str, str | None]] = []
    known: dict[str, None] = {}
    for name in names:
        if name == ORACLE or name in REFERENCES:
            rows.append(REFERENCES.get(name, (name, None)))
            continue
        own = list(getattr(named_method(name), "ablations", {}))
        known |= dict.fromkeys(own)
        wanted = own if "all" in ablations else [asked for asked in ablations if asked in own]
        rows += [(name, variant) for variant in wanted] if ablations else [(name, None)]
    for asked in ablations:
        if asked not in known and not (asked == "all" and known):
            near = difflib.get_close_matches(asked, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(known) or 'none'}"
            raise UserError(f"--ablation {asked}: no such ablation of {', '.join(names)}; {hint}")
    return list(dict.fromkeys(rows))


def _oracle_plan(spec: BackboneSpec, task: str, overrides: Overrides, trained_fields: Sequence[str]) -> RunPlan:
    """Return the oracle's run. It ignores `--epochs` and the settings of the methods in the same command."""
    recipe = train_recipe(ORACLE, spec.recipe, task, overrides.protocol)
    _, recipe = apply_overrides(ORACLE, {}, recipe, trained_fields, overrides.settings or {})
    return RunPlan(ORACLE, None, None, recipe, seed=0)


def _plan(name: str, variant: str | None, seed: int, spec: BackboneSpec, task: str, overrides: Overrides) -> RunPlan:
    recipe = train_recipe(name, spec.recipe, task, overrides.protocol)
    method = named_method(name)
    fields = method_config(name, spec.recipe, variant)
    fixed = {} if variant is None else method.ablations[variant]
    if overrides.epochs is not None:
        recipe = recipe.with_length(overrides.epochs)
    fields, recipe = apply_overrides(name, fields, recipe, tuple(method.Config.model_fields), overrides.settings or {})
    for field, value in fixed.items():
        if fields[field] != value:
            raise UserError(f"--set {field}: {default_label(name, variant)} fixes {field}={value}; remove this --set")
    if overrides.protocol == "published":
        for field, value in published_settings(name, task).items():
            if getattr(recipe, field) != value:
                raise UserError(f"--set {field}: the published protocol of {name} fixes {value}; remove this --set")
    if overrides.epochs not in (None, recipe.epochs):
        raise UserError(
            f"--epochs {overrides.epochs:g}: --set epochs says {recipe.epochs:g} ({name}); give one of them"
        )
    try:
        config = method.Config(**fields)
    except ValidationError as error:
        first = first_error(error)
        raise UserError(f"--set {first.field}: {first.message} ({name})") from error
    return RunPlan(name, variant, config, recipe, seed)
