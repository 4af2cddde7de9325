"""Decoding: the same tokens alone and in a batch, with and without the cache, and a search that finds the best."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.evaluation.decode import Hypothesis, Search, decode, decode_texts
from harness.evaluation.model import EvaluationFailedError
from methods import registry
from methods.base import Batch
from methods.tuned import TunedModel
from tests.backbones import EOS, alone, random_batch, tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

SEARCHES = (Search(5), Search(5, beams=3), Search(5, beams=2, length_penalty=0.0))
METHODS = sorted(registry())


def prompts(model: TunedModel, batch: int = 4) -> Batch:
    return random_batch(model.backbone, batch=batch, length=9, padding="left", seed=3)


@pytest.fixture(scope="module", params=METHODS)
def model(request: pytest.FixtureRequest) -> TunedModel:
    """A method whose texts end at different lengths."""
    model = tuned_model(request.param)
    with torch.no_grad():
        model.llm.lm_head.weight[EOS] *= 2.5
    return model


def gathered(batch: Batch, rows: list[int], more_padding: int) -> Batch:
    """Return the given rows of a batch, in any order and number, with more columns of padding in front."""
    padding = (more_padding, 0)
    return Batch(
        functional.pad(batch.input_ids_BL[rows], padding), functional.pad(batch.attention_mask_BL[rows], padding), None,
        batch.images_BCHW[rows], batch.has_image_B[rows],
    )  # fmt: skip


@pytest.fixture(scope="module")
def decoded_alone(model: TunedModel) -> Callable[[Search], list[Hypothesis]]:
    """Return the hypotheses of the samples decoded one by one, computed once per search."""
    batch = prompts(model)
    return cache(lambda search: [decode(model, alone(batch, row), EOS, search)[0] for row in range(4)])


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@settings(max_examples=8)
@given(rows=st.lists(st.integers(0, 3), min_size=2, max_size=6), more_padding=st.integers(0, 3))
def test_a_sample_is_the_same_alone_and_in_any_batch(
    model: TunedModel, decoded_alone: Any, search: Search, rows: list[int], more_padding: int
) -> None:
    together = decode(model, gathered(prompts(model), rows, more_padding), EOS, search)
    singly = [decoded_alone(search)[row] for row in rows]
    assert [h.tokens for h in together] == [h.tokens for h in singly]
    assert [h.finished for h in together] == [h.finished for h in singly]
    assert [h.score for h in together] == pytest.approx([h.score for h in singly], abs=1e-4)


def test_cached_decoding_is_the_full_forward_every_step(model: TunedModel) -> None:
    batch = prompts(model)
    for row, found in enumerate(decode(model, batch, EOS, Search(5))):
        one = alone(batch, row)
        total = 0.0
        for token in (*found.tokens, *[EOS] * found.finished):
            with torch.no_grad():
                log_probs = model.logits(one)[0, -1].log_softmax(dim=-1)
            assert int(log_probs.argmax()) == token
            total += float(log_probs[token])
            ids = torch.cat([one.input_ids_BL, torch.tensor([[token]])], dim=1)
            one = Batch(ids, torch.ones_like(ids, dtype=torch.bool), None, one.images_BCHW, one.has_image_B)
        assert found.log_prob == pytest.approx(total, abs=1e-3)


def test_beams_have_the_probability_of_their_tokens(model: TunedModel) -> None:
    """This fails if a beam continues with the cache of another beam."""
    batch = prompts(model)
    for row, found in enumerate(decode(model, batch, EOS, Search(5, beams=3))):
        one, text = alone(batch, row), [*found.tokens, *[EOS] * found.finished]
        ids = torch.cat([one.input_ids_BL, torch.tensor([text])], dim=1)
        whole = Batch(ids, torch.ones_like(ids, dtype=torch.bool), None, one.images_BCHW, one.has_image_B)
        with torch.no_grad():
            log_probs = model.logits(whole)[0, -len(text) - 1 : -1].log_softmax(dim=-1)
        total = float(log_probs[range(len(text)), text].sum())
        assert found.log_prob == pytest.approx(total, abs=1e-3)
        assert found.score == pytest.approx(total / len(text), abs=1e-3)


def test_images_are_encoded_once_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned_model("memvp")
    seen: list[int] = []
    encode = model.method.encode_images

    def count(backbone: Any, images_BCHW: Tensor) -> Any:
        seen.append(len(images_BCHW))
        return encode(backbone, images_BCHW)

    monkeypatch.setattr(model.method, "encode_images", count)
    batch = random_batch(model.backbone, batch=3, length=6, has_image=[True, False, True])
    decode(model, batch, EOS, Search(6, beams=4))
    assert seen == [2]


@pytest.mark.parametrize("name", ["memvp", "dehvf"])
def test_between_steps_a_memory_is_not_built(name: str) -> None:
    """The memory's `B×N×D` matrices would be larger than anything else that is kept between steps."""
    model = tuned_model(name, tiny_backbone(num_layers=8))
    with torch.no_grad():
        logits_BV, state = model.prefill(random_batch(model.backbone, batch=3, length=40, has_image=[True] * 3))
        model.step(logits_BV.argmax(dim=-1), state)
    assert state.layer_inputs is not None
    kept = [*state.visual.values()]
    for memory in state.layer_inputs["memories"]:
        kept += [value for side in (memory.keys, memory.values) for value in vars(side).values()]
    of_samples = [tensor for tensor in kept if isinstance(tensor, Tensor) and tensor.ndim >= 3]
    assert of_samples and all(tensor.shape[-1] != model.llm.config.hidden_size for tensor in of_samples)


# A model so small that all its texts can be listed


class Chain:
    """A model whose next token depends only on the sample and the last token: `logits_SVV` by sample."""

    def __init__(self, logits_SVV: Tensor) -> None:
        self.logits_SVV = logits_SVV
        self.fed: list[int] = []

    def eval(self) -> None:
        pass

    def prefill(self, batch: Any) -> tuple[Tensor, Any]:
        state = SimpleNamespace(samples=torch.arange(len(self.logits_SVV)), cache=None)

        def select(rows: Tensor) -> None:
            state.samples = state.samples[rows]

        # The model has no cache, so there is nothing to reorder.
        state.select, state.cache = select, SimpleNamespace(reorder_cache=lambda rows: None)
        return self.logits_SVV[:, 0], state

    def step(self, tokens_R: Tensor, state: Any) -> Tensor:
        self.fed.append(len(tokens_R))
        return self.logits_SVV[state.samples, tokens_R]


def chain(samples: int, vocabulary: int, seed: int) -> Chain:
    generator = torch.Generator().manual_seed(seed)
    return Chain(2 * torch.randn(samples, vocabulary, vocabulary, generator=generator))


def every_text(logits_VV: Tensor, search: Search, eos: int) -> list[Hypothesis]:
    """Return all texts up to the maximum length, by brute force."""
    log_probs, texts = logits_VV.log_softmax(dim=-1), []
    words = [token for token in range(len(logits_VV)) if token != eos]
    for length in range(search.max_new_tokens + 1):
        for tokens in itertools.product(words, repeat=length):
            finished = length < search.max_new_tokens
            path = [0, *tokens, *[eos] * finished]
            total = sum(float(log_probs[a, b]) for a, b in itertools.pairwise(path))
            texts.append(Hypothesis(tokens, total, total / (len(path) - 1) ** search.length_penalty, finished))
    return texts


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([-0.5, 0.0, 0.6, 1.0, 2.0]), st.integers(1, 4))
@example(184, -0.5, 3)
def test_a_beam_that_is_wide_enough_finds_the_best_text(seed: int, penalty: float, length: int) -> None:
    model = chain(2, 3, seed)
    search = Search(length, beams=3**4, length_penalty=penalty)
    for logits_VV, found in zip(model.logits_SVV, decode(model, None, 2, search), strict=True):
        texts = every_text(logits_VV, search, eos=2)
        best = max(text.score for text in texts)
        # Several texts can have the same score up to rounding, so compare the scores and not the texts.
        (same,) = (text for text in texts if (text.tokens, text.finished) == (found.tokens, found.finished))
        assert same.score == pytest.approx(best, abs=1e-5)
        assert found.score == pytest.approx(same.score, abs=1e-5)
        assert found.log_prob == pytest.approx(same.log_prob, abs=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 2.0]))
def test_greedy_search_takes_the_likeliest_token_until_the_end(seed: int, penalty: float) -> None:
    model = chain(3, 6, seed)
    for logits_VV, found in zip(
        model.logits_SVV, decode(model, None, 5, Search(8, 1, penalty)), strict=True
    ):  # fmt: skip
        tokens: list[int] = []
        last = 0
        while len(tokens) < 8 and (last := int(logits_VV[last].argmax())) != 5:
            tokens.append(last)
        assert found.tokens == tuple(tokens)
        assert found.finished == (last == 5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_beams_lose_nothing_to_greedy_on_the_whole(seed: int, width: int) -> None:
    """A beam may drop the greedy text early, so a single text can be worse; the sum over many texts is not."""
    model = chain(40, 6, seed)
    greedy = decode(model, None, 5, Search(6))
    beam = decode(model, None, 5, Search(6, beams=width))
    assert sum(h.score for h in beam) >= sum(h.score for h in greedy)
    assert any(b.score > g.score for b, g in zip(beam, greedy, strict=True))


def test_a_finished_sample_leaves_the_batch() -> None:
    logits = torch.full((2, 3, 3), -20.0)
    logits[0, :, 2] = 0.0  # the first sample ends at once
    logits[1, :, 1] = 0.0  # the second never
    model = Chain(logits)
    first, second = decode(model, None, 2, Search(4))
    assert (first.tokens, first.finished) == ((), True)
    assert (second.tokens, second.finished) == ((1, 1, 1, 1), False)
    assert model.fed == [1, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_no_text(value: float) -> None:
    model = chain(2, 4, 0)
    model.logits_SVV[1, :, 2] = value
    with pytest.raises(EvaluationFailedError, match="NaN or infinite"):
        decode(model, None, 3, Search(3))


@pytest.mark.parametrize("fields", [{"max_new_tokens": 0}, {"beams": 0}])
def test_a_search_has_tokens_and_beams(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Search(**fields)


def test_texts_are_in_the_order_of_the_examples(tmp_path: Path) -> None:
    model = tuned_model("memvp", tiny_backbone(vocab_size=300))
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "image.png")
    examples = [Example(str(i), "say " + "x" * (i * 3 % 5), None, tmp_path / "image.png") for i in range(5)]
    tokenizer = byte_tokenizer()

    def texts(batch_size: int) -> list[str]:
        done: list[int] = []
        collator = Collator(tokenizer, ImagePreprocessor(32), 64, padding_side="left")
        found = decode_texts(model, examples, collator, batch_size, Search(4), done.append)
        assert done[-1] == 5
        assert all(text == tokenizer.decode(list(h.tokens)).strip() for text, h in found)
        return [text for text, _ in found]

    assert texts(1) == texts(2) == texts(5)
    assert len(set(texts(5))) > 1  # with the same text everywhere, the line above would prove nothing
