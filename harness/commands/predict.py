"""The subcommand `predict`: one answer or one caption from a saved adapter."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.backbone.machine import torch_device
from harness.escape import visible_lines
from harness.run.predict import LoadedAdapter, load_adapter


def loaded_adapter(folder: Path, device: str, llm: str | None, clip: str | None) -> LoadedAdapter:
    """Return a saved adapter on its backbone.

    Args:
        folder: folder of the adapter.
        device: what `--device` says.
        llm, clip: what `--llm` and `--clip` say.

    Raises:
        UserError: the adapter cannot be loaded.
    """
    return load_adapter(folder, str(torch_device(device)), llm, clip)


def predict_text(
    adapter: LoadedAdapter, question: str, image: Path | None, choices: Sequence[str], hint: str, format: str
) -> str:
    """Return the answer of an adapter.

    Args:
        adapter: the adapter.
        question: the question; empty for a caption of the image.
        image: an image file, if there is one.
        choices: the options to choose from; none for an answer in free text.
        hint: context of the question.
        format: `json`, or `markdown` for the answer alone.

    Raises:
        UserError: the question cannot be answered.
    """
    found = adapter.answer(question, image, choices, hint)
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    return visible_lines(found.text) or f"(no option could be read from the model's answer {found.raw!r})"
