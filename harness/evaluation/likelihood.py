"""The likelihood of each option of a question, for language models whose letters are not one token.

The option X is scored by log p(` X.` | prompt, `The answer is`), which is the sum over its tokens. The texts of two
options differ in their letter only, so the sum needs no normalisation by length.

Shape suffixes: B samples, R rows (one per sample and option), T tokens of an option, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.data.prompts import LETTERS, Tokenizer, encode
from harness.evaluation.model import EvaluatedModel, require_finite
from methods.base import Batch

LONGEST_OPTION = len(" X.")
"""No option has more tokens than this."""


def continuations(tokenizer: Tokenizer, prompt: str, num_choices: int) -> list[list[int]] | None:
    """Return the tokens with which each option continues a prompt that ends in `The answer is`.

    Args:
        tokenizer: the language model's tokenizer.
        prompt: the prompt.
        num_choices: number of options.

    Returns:
        One list of tokens per option; None where the tokenizer merges the option with the end of the prompt.
    """
    before = encode(tokenizer, prompt)
    wholes = [encode(tokenizer, f"{prompt} {letter}.") for letter in LETTERS[:num_choices]]
    if any(whole[: len(before)] != before for whole in wholes):
        return None
    return [whole[len(before) :] for whole in wholes]


@torch.no_grad()
def log_likelihoods(
    model: EvaluatedModel, batch: Batch, options: Sequence[Sequence[Sequence[int]]], ids: Sequence[str]
) -> list[list[float]]:
    """Return the log-likelihood of every option of every sample.

    Args:
        model: the tuned model, in evaluation mode.
        batch: the prompts, padded on the left, on the model's device.
        options: the tokens of each option of each sample.
        ids: ids of the samples, for the error message.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    logits_BV, state = model.prefill(batch)
    device = logits_BV.device
    rows_R = torch.tensor([sample for sample, own in enumerate(options) for _ in own], device=device)
    flat = [list(tokens) for own in options for tokens in own]
    longest = max(map(len, flat))
    # Tokens behind the end of a shorter option are fed, but not scored.
    tokens_RT = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in flat], device=device)
    scored_RT = torch.tensor([[t < len(tokens) for t in range(longest)] for tokens in flat], device=device)
    state.select(rows_R)
    logits_RV = logits_BV[rows_R]
    sums_R = torch.zeros(len(flat), device=device)
    for t in range(longest):
        if t:
            logits_RV = model.step(tokens_RT[:, t - 1], state)
        require_finite(logits_RV, ids[0])
        sums_R += torch.where(scored_RT[:, t], _log_p(logits_RV, tokens_RT[:, t]), 0.0)
    sums = iter(sums_R.tolist())
    return [[next(sums) for _ in own] for own in options]


def _log_p(logits_RV: Tensor, tokens_R: Tensor) -> Tensor:
    log_p_RV = logits_RV.float().log_softmax(dim=-1)
    return log_p_RV.gather(1, tokens_R[:, None]).squeeze(1)
