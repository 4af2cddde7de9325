"""Helpers of the tests of `harness.backbone`: a small backbone of random weights, and checks of a loaded one."""

from typing import Any

import pytest
import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from tests.folders import CLIP_CONFIG

SIZES = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
SMALL = BackboneSpec("small", None, None, SIZES, CLIP_CONFIG, "small")
RANDOM_META: dict[str, Any] = {"weights": "random", "device": "meta"}
"""Options of `load_backbone` that give tensors with a shape but no storage."""


def logits(backbone: Backbone) -> torch.Tensor:
    """Return the logits of five tokens."""
    with torch.no_grad():
        return backbone.llm(input_ids=torch.arange(5)[None]).logits


def refuses(message: str, spec: BackboneSpec, **options: Any) -> None:
    """Check that loading `spec` fails with a one-line UserError that matches `message`."""
    with pytest.raises(UserError, match=message) as error:
        load_backbone(spec, **options)
    assert "\n" not in str(error.value)
