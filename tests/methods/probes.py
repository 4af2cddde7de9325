"""Looking at a model while it runs: which blocks run, how often a module is called, what is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods import memory
from methods.base import Batch, VisualFeatures
from methods.memory_forms import Form
from methods.tuned import TunedModel

FORMS: tuple[Form | None, ...] = (None, "built", "kept", "rebuilt", "factored")
"""The forms of a side of a memory; None stands for the form that the code chooses."""


@contextmanager
def forced_form(form: Form | None) -> Iterator[None]:
    """Use one form for every side of every memory; None leaves the choice to the code."""
    with pytest.MonkeyPatch.context() as patch:
        if form is not None:
            patch.setattr(memory, "cheapest_form", lambda *_, **__: form)
        yield


def blocks_run(model: TunedModel) -> list[int]:
    """Return a list to which each CLIP block adds its index, from 0, when it runs."""
    ran: list[int] = []
    for index, block in enumerate(model.vision.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    return ran


def calls_of(module: nn.Module) -> list[None]:
    """Return a list that grows by one item with each forward pass of a module."""
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def prompts(batch: Batch) -> Batch:
    """Return a batch without its last column and its labels, to decode from."""
    return replace(
        batch,
        input_ids_BL=batch.input_ids_BL[:, :-1],
        attention_mask_BL=batch.attention_mask_BL[:, :-1],
        labels_BL=None,
    )


def greedy_logits(model: TunedModel, prompt: Batch, tokens: int, visual: VisualFeatures | None = None) -> Tensor:
    """Decode greedily without stopping at EOS.

    Args:
        model: the model.
        prompt: the prompts, padded on the left.
        tokens: how many tokens to decode, at least 1.
        visual: the visual features; None encodes the images of `prompt`.

    Returns:
        The logits that each token is chosen by, `B×tokens×V`; the first are those of the prefill.
    """
    with torch.no_grad():
        logits_BV, state = model.prefill(prompt, visual)
        seen = [logits_BV]
        for _ in range(tokens - 1):
            seen.append(model.step(seen[-1].argmax(dim=-1), state))
    return torch.stack(seen, dim=1)
