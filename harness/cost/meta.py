"""A method on a backbone of shapes alone: real sizes, no weights, no memory."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from harness.backbone.loader import Backbone, load_backbone
from harness.config.lookup import expand, named_method, registered_names
from harness.config.presets import PRESETS, BackboneSpec, resolve_spec
from harness.config.recipes import method_config
from harness.errors import UserError
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


def meta_backbone(spec: BackboneSpec) -> Backbone:
    """The backbone's shapes, with no method attached."""
    return load_backbone(spec, weights="random", device="meta")


def attach_on_meta(
    name: str,
    spec: BackboneSpec,
    variant: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    num_patches: int | None = None,
    pristine: Backbone | None = None,
) -> tuple[Backbone, Any]:
    """A fresh meta-device backbone of `spec` and the method attached to it, with its recipe for that model.

    Args:
        name: registry name of the method.
        spec: which backbone; only its sizes matter.
        variant: one of the method's ablations; None for the method itself.
        settings: fields of the config on top of the recipe; those that this method has not are left out.
        num_patches: patches of an image that the formulas take in place of the vision tower's own.
        pristine: `meta_backbone(spec)`, copied rather than built anew where many methods are asked about.

    Returns:
        The backbone and the method, attached.

    Raises:
        UserError: the method cannot be built at this size, or has no such ablation.
    """
    method_class = get_method(name)
    known = method_class.Config.model_fields
    fields = method_config(name, spec.recipe, variant) | {k: v for k, v in (settings or {}).items() if k in known}
    pristine = pristine or meta_backbone(spec)
    backbone = replace(pristine, llm=deepcopy(pristine.llm), vision=deepcopy(pristine.vision))
    if num_patches is not None:
        backbone.vision.num_patches = num_patches
    try:
        with torch.device("meta"):
            return backbone, method_class(backbone, method_class.Config(**fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "config"
        raise UserError(f"{name} on {spec.display}: {field}: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"{name} on {spec.display}: {error}") from error
