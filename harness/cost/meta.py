"""What the cost commands ask about: a backbone by its sizes alone, methods by name, each as a plan to attach."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.lookup import expand, named_method, registered_names
from harness.config.plan import RunPlan
from harness.config.presets import PRESETS, BackboneSpec, resolve_spec
from harness.config.recipes import TrainRecipe, method_config
from harness.errors import UserError, first_error
from methods import get_method

_CLIP_OF = "7b"
"""The preset whose vision tower stands beside a language model that is given alone."""


def cost_spec(model: str, llm: str | None = None, clip: str | None = None) -> BackboneSpec:
    """The backbone whose cost is asked for.

    Args:
        model: preset, or a folder or hub id of a Llama model.
        llm: id or folder in place of the preset's language model.
        clip: `NAME[:WEIGHTS]` in place of the preset's vision tower.

    Raises:
        UserError: no such preset.
    """
    if not model:
        raise UserError(f"--model: give one of {', '.join(PRESETS)}, or a folder or hub id of a Llama model")
    if llm is None and model not in PRESETS and ("/" in model or Path(model).is_dir()):
        model, llm = _CLIP_OF, model
    return resolve_spec(model, llm, clip)


def method_names(methods: Sequence[str]) -> list[str]:
    """The names asked for, each once; `all` stands for every registered method.

    Raises:
        UserError: none is named; else as `harness.config.lookup` raises.
    """
    if not methods:
        raise UserError(f"--methods: give all, or some of {', '.join(registered_names())}")
    names = expand(methods)
    return [named_method(name).name for name in dict.fromkeys(names)]


def method_plan(
    name: str, spec: BackboneSpec, variant: str | None = None, settings: Mapping[str, Any] | None = None
) -> RunPlan:
    """A method with its sizes for a backbone, as a plan that can be attached but not trained.

    Args:
        name: registry name of the method.
        spec: which backbone.
        variant: one of the method's ablations; None for the method itself.
        settings: fields of the config on top of the recipe; fields that this method does not have are left out.

    Raises:
        UserError: the method has no such ablation, or a value that does not fit.
    """
    config_class = get_method(name).Config
    known = config_class.model_fields
    fields = method_config(name, spec.recipe, variant) | {k: v for k, v in (settings or {}).items() if k in known}
    try:
        config = config_class(**fields)
    except ValidationError as error:
        raise UserError(f"{name} on {spec.display}: {first_error(error)}") from error
    return RunPlan(name, variant, config, TrainRecipe.model_validate({}), seed=0)
