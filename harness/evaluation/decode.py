"""The decoder that all methods share: batched greedy and beam search over `TunedModel.prefill` and `step`.

Each prompt is run once and its image is encoded once; the beams of a sample share both. A sample leaves the batch when
it is finished. Greedy search is beam search with one beam. All hypotheses, finished or not, are ranked by

    log p(tokens) / length^length_penalty                (Wu et al. 2016, without the constant 5)

where the length counts the end token. Each step keeps the best `beams` hypotheses of a sample. A finished hypothesis is
kept unchanged for as long as it ranks among them. A sample is finished when its best hypothesis is finished and no
other hypothesis can still reach a better score.

Shape suffixes: B samples still decoding, W beams, R = B·W rows of the model, V vocabulary, T tokens decoded so far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.data.collate import Collator, Example
from harness.data.loading import Loading
from harness.data.prompts import text_of
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from harness.evaluation.model import EvaluatedModel, EvaluationFailedError
from methods.base import Batch


@dataclass(frozen=True)
class Search:
    """How to decode.

    Attributes:
        max_new_tokens: the maximum number of tokens, the end token included.
        beams: beam width; 1 is greedy search.
        length_penalty: exponent of the length in the score; 0 ranks by probability, larger values favour long texts.

    Raises:
        ValueError: `max_new_tokens` or `beams` is below 1.
    """

    max_new_tokens: int = 64
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.beams < 1:
            raise ValueError("a search needs at least one token and at least one beam")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A decoded text.

    Attributes:
        tokens: the tokens without the end token.
        log_prob: log-probability of all tokens, the end token included.
        score: the score by which hypotheses are ranked, see the top of this file.
        finished: whether the end token came within `max_new_tokens`.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    finished: bool


@torch.no_grad()
def decode(model: EvaluatedModel, batch: Batch, eos: int, search: Search) -> list[Hypothesis]:
    """Find the best text for every sample of a batch.

    Args:
        model: the tuned model.
        batch: the prompts, padded on the left, on the model's device.
        eos: id of the token that ends a text.
        search: how to decode.

    Returns:
        One hypothesis per sample, in the order of the batch.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    model.eval()
    logits_RV, state = model.prefill(batch)
    size, width = len(logits_RV), search.beams
    if width > 1:
        rows_R = torch.arange(size, device=logits_RV.device).repeat_interleave(width)
        state.select(rows_R)
        logits_RV = logits_RV[rows_R]
    beams = _Beams(size, search, eos, logits_RV.device)
    found: dict[int, Hypothesis] = {}
    while True:
        rows_R = beams.grow(logits_RV)
        over_B = beams.over()
        found.update(beams.best(over_B))
        if bool(over_B.all()):
            return [found[sample] for sample in range(size)]
        if bool(over_B.any()):
            rows_R = rows_R.view(-1, width)[~over_B].flatten()
            beams.keep(~over_B)
            state.select(rows_R)
        elif width > 1:
            # Only the key-value cache is reordered, because the beams of a sample share all other state.
            state.cache.reorder_cache(rows_R)  # type: ignore[arg-type]  # torch annotates a LongTensor as Tensor
        logits_RV = model.step(beams.last_R, state)


class _Beams:
    """The hypotheses of the samples that are still decoding, best first."""

    def __init__(self, size: int, search: Search, eos: int, device: torch.device) -> None:
        self.search, self.eos = search, eos
        self.samples_B = torch.arange(size, device=device)
        # All beams of a sample start out equal, so only the first one may be continued.
        self.sums_BW = torch.full((size, search.beams), -torch.inf, device=device)
        self.sums_BW[:, 0] = 0.0
        self.lengths_BW = torch.zeros(size, search.beams, dtype=torch.int64, device=device)
        self.done_BW = torch.zeros(size, search.beams, dtype=torch.bool, device=device)
        self.tokens_BWT = torch.zeros(size, search.beams, 0, dtype=torch.int64, device=device)

    @property
    def last_R(self) -> Tensor:
        """The next input token of each row."""
        return self.tokens_BWT[:, :, -1].flatten()

    @property
    def scores_BW(self) -> Tensor:
        return self._score(self.sums_BW, self.lengths_BW)

    def _score(self, sums: Tensor, lengths: Tensor | int) -> Tensor:
        return sums / torch.as_tensor(lengths, device=sums.device).float() ** self.search.length_penalty

    def grow(self, logits_RV: Tensor) -> Tensor:
        """Continue every hypothesis by one token and keep the best ones.

        Args:
            logits_RV: the model's logits of the next token.

        Returns:
            For each row the old row that its hypothesis continues, `R`.
        """
        if not bool(torch.isfinite(logits_RV).all()):
            raise EvaluationFailedError("logits are NaN or infinite while decoding")
        size, width = self.sums_BW.shape
        vocabulary = logits_RV.shape[-1]
        sums_BWV = self.sums_BW[..., None] + logits_RV.float().log_softmax(dim=-1).view(size, width, vocabulary)
        # A finished hypothesis has one continuation, another end token, which keeps its sum.
        sums_BWV[self.done_BW] = -torch.inf
        sums_BWV[..., self.eos] = torch.where(self.done_BW, self.sums_BW, sums_BWV[..., self.eos])
        lengths_BW = self.lengths_BW + ~self.done_BW
        chosen_BW = self._score(sums_BWV, lengths_BW[..., None]).flatten(1).topk(width, dim=1).indices
        parents_BW, tokens_BW = chosen_BW // vocabulary, chosen_BW % vocabulary
        self.sums_BW = sums_BWV.flatten(1).gather(1, chosen_BW)
        self.lengths_BW = lengths_BW.gather(1, parents_BW)
        self.done_BW = self.done_BW.gather(1, parents_BW) | (tokens_BW == self.eos)
        histories_BWT = self.tokens_BWT.take_along_dim(parents_BW[..., None], dim=1)
        self.tokens_BWT = torch.cat([histories_BWT, tokens_BW[..., None]], dim=2)
        return (parents_BW + width * torch.arange(size, device=parents_BW.device)[:, None]).flatten()

    def over(self) -> Tensor:
        """Return which samples are finished or have reached the maximum length, `B`."""
        length = self.tokens_BWT.shape[2]
        if length == self.search.max_new_tokens:
            return torch.ones_like(self.samples_B, dtype=torch.bool)
        # A bound on what an unfinished hypothesis can still score. Its log-probability can only fall, and the score is
        # monotonic in the length, so its best case is to lose nothing and end either now or at the maximum length.
        ends = [self._score(self.sums_BW, end) for end in (length + 1, self.search.max_new_tokens)]
        bounds_BW = torch.maximum(*ends).masked_fill(self.done_BW, -torch.inf)
        return self.done_BW[:, 0] & (self.scores_BW[:, 0] >= bounds_BW.amax(dim=1))

    def best(self, over_B: Tensor) -> dict[int, Hypothesis]:
        """Return the best hypothesis of the samples where `over_B` is true, by the sample's index in the batch."""
        found = {}
        for row in over_B.nonzero().flatten().tolist():
            finished = bool(self.done_BW[row, 0])
            length = int(self.lengths_BW[row, 0]) - finished
            found[int(self.samples_B[row])] = Hypothesis(
                tokens=tuple(self.tokens_BWT[row, 0, :length].tolist()),
                log_prob=float(self.sums_BW[row, 0]),
                score=float(self.scores_BW[row, 0]),
                finished=finished,
            )
        return found

    def keep(self, kept_B: Tensor) -> None:
        """Keep only the samples where `kept_B` is true."""
        for name in ("samples_B", "sums_BW", "lengths_BW", "done_BW", "tokens_BWT"):
            setattr(self, name, getattr(self, name)[kept_B])


def decode_texts(
    model: EvaluatedModel,
    examples: Sequence[Example],
    collator: Collator,
    batch_size: int,
    search: Search,
    on_batch: Callable[[int], None] = lambda done: None,
    log: AnswerLog | None = None,
    loading: Loading | None = None,
) -> list[tuple[str, Hypothesis]]:
    """Decode a text for every example.

    Args:
        model: the tuned model.
        examples: prompts without answers.
        collator: pads on the left; its `truncated` counts the prompts that were cut.
        batch_size: samples per forward pass. Samples of similar length share a batch; this changes no text.
        search: how to decode.
        on_batch: called after each batch with the number of examples done.
        log: answers of an interrupted evaluation; None keeps nothing.
        loading: how batches are prepared; None uses no workers.

    Returns:
        Text and hypothesis of each example, in the order of `examples`.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    tokenizer = collator.tokenizer

    def best(batch: Batch, ids: Sequence[str]) -> list[list[Any]]:
        found = decode(model, batch, int(tokenizer.eos_token_id), search)
        return [[list(h.tokens), h.log_prob, h.score, h.finished] for h in found]

    device = model.backbone.device
    answers = answer_in_batches(
        best, examples, collator, batch_size, device, on_batch, log or AnswerLog(), loading or Loading()
    )
    texts = []
    for tokens, log_prob, score, finished in answers:
        text = text_of(tokenizer, tokens, skip_special_tokens=True).strip()
        texts.append((text, Hypothesis(tuple(tokens), log_prob, score, finished)))
    return texts
