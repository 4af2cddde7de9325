"""What tests of the backbone loader share."""

from typing import Any

import pytest
import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.config.presets import BackboneSpec
from harness.errors import UserError


def logits(backbone: Backbone) -> torch.Tensor:
    """Of five tokens."""
    with torch.no_grad():
        return backbone.llm(input_ids=torch.arange(5)[None]).logits


def refuses(message: str, spec: BackboneSpec, **options: Any) -> None:
    """Loading ends in one line that matches `message`."""
    with pytest.raises(UserError, match=message) as error:
        load_backbone(spec, **options)
    assert "\n" not in str(error.value)
