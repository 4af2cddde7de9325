"""Building a planned method on a backbone, with weights or on shapes alone."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from methods import get_method
from methods.frozen import Frozen

SIZES_BY_SET = "change its sizes by --set"


def attach(plan: RunPlan, backbone: Backbone, remedy: str = SIZES_BY_SET) -> Any:
    """The plan's method, built on the backbone.

    Args:
        plan: the method and its config.
        backbone: attached to in place.
        remedy: what to do where it cannot be built.

    Raises:
        UserError: it cannot be built at this size.
    """
    if plan.is_oracle:
        return Frozen(backbone)
    try:
        return get_method(plan.method)(backbone, plan.config)
    except ValueError as error:
        raise UserError(f"{plan.label} on {backbone.spec.display}: {error}; {remedy}") from error


def meta_backbone(spec: BackboneSpec, dtype: torch.dtype = torch.float32) -> Backbone:
    """The backbone's shapes on the meta device: real sizes, no weights, no memory, no method attached."""
    return load_backbone(spec, weights="random", device="meta", dtype=dtype)


def attach_on_meta(
    plan: RunPlan,
    spec: BackboneSpec,
    remedy: str = SIZES_BY_SET,
    *,
    pristine: Backbone | None = None,
    num_patches: int | None = None,
) -> tuple[Backbone, Any]:
    """The plan's method on a fresh copy of the backbone's shapes.

    Args:
        plan: the method and its config.
        spec: which backbone; only its sizes matter.
        remedy: what to do where it cannot be built.
        pristine: `meta_backbone(spec)`, copied here, so that it need not be built anew for each of many methods.
        num_patches: patches of an image that cost formulas assume in place of the vision tower's own.

    Returns:
        The backbone and the method attached to it.

    Raises:
        UserError: the method cannot be built at this size.
    """
    pristine = pristine or meta_backbone(spec)
    backbone = replace(pristine, llm=deepcopy(pristine.llm), vision=deepcopy(pristine.vision))
    if num_patches is not None:
        backbone.vision.num_patches = num_patches
    with torch.device("meta"):
        return backbone, attach(plan, backbone, remedy)
