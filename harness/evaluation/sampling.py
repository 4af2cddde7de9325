"""The published sampling: texts drawn from the likeliest tokens, and random choices where no answer can be read.

The random numbers of a sample depend on the seed and on its id alone, so its text is the same in every batch and after
an interruption.

Shape suffixes: B samples still decoding, V vocabulary.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from harness.evaluation.model import EvaluatedModel, require_finite
from methods.base import Batch

TEMPERATURE = 0.1
TOP_P = 0.75


@torch.no_grad()
def sample_texts(
    model: EvaluatedModel, batch: Batch, ids: Sequence[str], eos: int, max_new_tokens: int, seed: int
) -> list[list[int]]:
    """Draw a text for every sample of a batch.

    Args:
        model: the tuned model, in evaluation mode.
        batch: the prompts, padded on the left, on the model's device.
        ids: ids of the samples.
        eos: id of the token that ends a text.
        max_new_tokens: the maximum number of tokens, the end token included.
        seed: seed of the random numbers.

    Returns:
        The tokens of each text, without the end token.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    warp = LogitsProcessorList([TemperatureLogitsWarper(TEMPERATURE), TopPLogitsWarper(TOP_P)])
    draws = [random.Random(f"{seed} {name}") for name in ids]
    texts: list[list[int]] = [[] for _ in ids]
    decoding = list(range(len(ids)))
    logits_BV, state = model.prefill(batch)
    for _ in range(max_new_tokens):
        require_finite(logits_BV, ids[decoding[0]])
        no_prompt: Any = torch.empty(0)  # the warpers do not read it, though their annotation asks for a LongTensor
        p_BV = warp(no_prompt, logits_BV.float()).softmax(dim=-1).double()
        u_B1 = torch.tensor([[draws[i].random()] for i in decoding], device=p_BV.device, dtype=p_BV.dtype)
        cumulative_BV = p_BV.cumsum(dim=-1)
        tokens = torch.searchsorted(cumulative_BV, u_B1 * cumulative_BV[:, -1:], right=True).flatten().tolist()
        going_on = [row for row, token in enumerate(tokens) if token != eos]
        for row in going_on:
            texts[decoding[row]].append(tokens[row])
        if not going_on:
            break
        if len(going_on) < len(decoding):
            state.select(torch.tensor(going_on, device=p_BV.device))
            decoding = [decoding[row] for row in going_on]
        logits_BV = model.step(torch.tensor([tokens[row] for row in going_on], device=p_BV.device), state)
    return texts


def guess(seed: int, name: str, num_choices: int) -> int:
    """Return a random choice for the sample with this id, always the same one."""
    return random.Random(f"{seed} {name} guess").randrange(num_choices)
