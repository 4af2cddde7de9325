"""From the options of `params` and `flops` to a backbone and methods that are built on the meta device."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.lookup import expand, named_method, registered_names
from harness.config.plan import RunPlan
from harness.config.presets import PRESETS, BackboneSpec, looks_like_path, resolve_spec
from harness.config.recipe import TrainRecipe
from harness.config.recipes import method_config
from harness.errors import UserError, first_error
from methods import get_method

_CLIP_OF = "7b"
"""The preset whose vision tower is used with a language model that is given without one."""
_OTHERS = "a folder or hub id of a Llama model"


def cost_spec(model: str, llm: str | None = None, clip: str | None = None) -> BackboneSpec:
    """Return the backbone whose cost is counted.

    Args:
        model: name of a preset, or folder or hub id of a Llama model.
        llm: folder or hub id of a language model that replaces the preset's.
        clip: `NAME[:WEIGHTS]` of a vision tower that replaces the preset's.

    Raises:
        UserError: `model` is empty or names no preset.
    """
    if not model:
        raise UserError(f"--model: give one of {', '.join(PRESETS)}, or {_OTHERS}")
    if llm is None and model not in PRESETS and (looks_like_path(model) or "/" in model or Path(model).is_dir()):
        return replace(resolve_spec(_CLIP_OF, model, clip), llm_option="--model")
    return resolve_spec(model, llm, clip, others=f"give one of them, or {_OTHERS}")


def method_names(methods: Sequence[str]) -> list[str]:
    """Return the registry names that the user gave, each once; `all` stands for every registered method.

    Raises:
        UserError: no method is given, or one is unknown or cannot be imported (`harness.config.lookup`).
    """
    if not methods:
        raise UserError(f"--methods: give all, or some of {', '.join(registered_names())}")
    names = expand(methods)
    return [named_method(name).name for name in dict.fromkeys(names)]


def method_plan(
    name: str, spec: BackboneSpec, variant: str | None = None, settings: Mapping[str, Any] | None = None
) -> RunPlan:
    """Return a plan that attaches a method with its sizes for a backbone. The plan is not meant for training.

    Args:
        name: registry name of the method.
        spec: the backbone.
        variant: one of the method's ablations; None for the method itself.
        settings: fields of the config that override the recipe; fields that this method does not have are ignored.

    Raises:
        UserError: the method has no such ablation, or a value is not allowed.
    """
    config_class = get_method(name).Config
    known = config_class.model_fields
    fields = method_config(name, spec.recipe, variant) | {k: v for k, v in (settings or {}).items() if k in known}
    try:
        config = config_class(**fields)
    except ValidationError as error:
        raise UserError(f"{name} on {spec.display}: {first_error(error)}") from error
    return RunPlan(name, variant, config, TrainRecipe.model_validate({}), seed=0)
