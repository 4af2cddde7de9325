"""The subcommand `predict`: one answer or one caption from a saved adapter."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.backbone.machine import torch_device
from harness.escape import visible_lines
from harness.run.predict import load_adapter


def predict_text(
    adapter: Path, question: str, image: Path | None, choices: Sequence[str], hint: str, device: str, format: str
) -> str:
    """Return the answer of a saved adapter.

    Args:
        adapter: folder of the adapter.
        question: the question; empty for a caption of the image.
        image: an image file, if there is one.
        choices: the options to choose from; none for an answer in free text.
        hint: context of the question.
        device: what `--device` says.
        format: `json`, or `markdown` for the answer alone.

    Raises:
        UserError: the adapter cannot be loaded, or the question cannot be answered.
    """
    found = load_adapter(adapter, str(torch_device(device))).answer(question, image, choices, hint)
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    return visible_lines(found.text) or f"(no option could be read from the model's answer {found.raw!r})"
