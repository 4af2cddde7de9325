"""Building a planned method on a backbone, either with weights or on the meta device, with shapes only."""

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

CHANGE_SIZES = "change its sizes with --set"


def attach(plan: RunPlan, backbone: Backbone, remedy: str = CHANGE_SIZES) -> Any:
    """Build the plan's method on a backbone.

    Args:
        plan: the method and its config.
        backbone: the method wraps or replaces its submodules in place.
        remedy: what the error message tells the user to do.

    Returns:
        The method: an `nn.Module` that satisfies `methods.base.Method`.

    Raises:
        UserError: the method cannot be built at this size.
    """
    if plan.is_oracle:
        return Frozen(backbone)
    try:
        return get_method(plan.method)(backbone, plan.config)
    except ValueError as error:
        raise UserError(f"{plan.label} on {backbone.spec.display}: {error}; {remedy}") from error


def meta_backbone(spec: BackboneSpec, dtype: torch.dtype = torch.float32) -> Backbone:
    """Return a backbone on the meta device: it has the real shapes, but no values, and takes no memory.

    Args:
        spec: the backbone; only its sizes are used.
        dtype: dtype of the weights.
    """
    return load_backbone(spec, weights="random", device="meta", dtype=dtype)


def attach_on_meta(
    plan: RunPlan,
    spec: BackboneSpec,
    remedy: str = CHANGE_SIZES,
    *,
    pristine: Backbone | None = None,
    num_patches: int | None = None,
) -> tuple[Backbone, Any]:
    """Build the plan's method on a backbone of its own on the meta device.

    Args:
        plan: the method and its config.
        spec: the backbone; only its sizes are used.
        remedy: what the error message tells the user to do.
        pristine: result of `meta_backbone(spec)`, which is copied. It saves building the backbone for every method.
        num_patches: patches per image for the FLOPs; None takes those of the vision tower.

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
