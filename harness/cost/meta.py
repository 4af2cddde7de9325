"""A method on a backbone of shapes alone: real sizes, no weights, no memory."""

from typing import Any

import torch
from pydantic import ValidationError

from harness.backbone import Backbone, load_backbone
from harness.errors import UserError
from harness.presets import BackboneSpec
from harness.recipes import method_config
from methods import get_method


def attach_on_meta(name: str, spec: BackboneSpec, variant: str | None = None) -> tuple[Backbone, Any]:
    """A fresh meta-device backbone of `spec` and the method attached to it, with its recipe for that model.

    Args:
        name: registry name of the method.
        spec: which backbone; only its sizes matter.
        variant: one of the method's ablations; None for the method itself.

    Returns:
        The backbone and the method, attached.

    Raises:
        UserError: the method cannot be built at this size, or has no such ablation.
    """
    method_class = get_method(name)
    fields = method_config(name, spec.name, variant)
    backbone = load_backbone(spec, weights="random", device="meta")
    try:
        with torch.device("meta"):
            return backbone, method_class(backbone, method_class.Config(**fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "config"
        raise UserError(f"{name} on {spec.display}: {field}: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"{name} on {spec.display}: {error}") from error
