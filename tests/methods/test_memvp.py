"""MemVP as a whole: the printed formula, what runs and how often, and the published counts."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.memory_forms import Form
from methods.memvp import MemVP
from tests.backbones import random_batch, tiny_backbone, tiny_config, tuned_model
from tests.methods import plain
from tests.methods.probes import FORMS, blocks_run, calls_of, forced_form, greedy_logits
from tests.methods.sizes import paper_count, real_size_backbone


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Draw the sizes of one model and one batch."""
    return {
        "batch": draw(st.integers(1, 3)),
        "length": draw(st.integers(4, 9)),
        "has_image": draw(st.lists(st.booleans(), min_size=3, max_size=3)),
        "backbone": {
            "num_layers": draw(st.integers(1, 3)),
            "hidden_size": draw(st.sampled_from([16, 32])),
            "num_kv_heads": draw(st.sampled_from([1, 2, 4])),
            "vision_layers": draw(st.integers(2, 4)),
            "vision_width": draw(st.sampled_from([16, 24])),
            "image_size": draw(st.sampled_from([16, 24])),
        },
    }


@settings(max_examples=8)
@given(cases(), st.sampled_from(FORMS))
def test_logits_equal_the_printed_formula_in_every_form(case: dict[str, Any], form: Form | None) -> None:
    model = tuned_model("memvp", tiny_backbone(**case["backbone"]))
    bare = tiny_backbone(**case["backbone"])
    batch = random_batch(bare, case["batch"], case["length"], 3, "right", case["has_image"][: case["batch"]])
    with forced_form(form):
        plain.check_logits(model, bare, batch)


def test_empty_memory_without_an_image_is_the_base_model() -> None:
    model, bare = tuned_model("memvp", random=False), tiny_backbone()
    batch = random_batch(bare, 3, 9, has_image=[False] * 3)
    with torch.no_grad():
        assert model.method.memory.prompts.values.abs().max() == 0
        assert torch.equal(model.logits(batch), bare.llm(input_ids=batch.input_ids_BL).logits)


def test_no_block_after_the_penultimate_runs() -> None:
    model = tuned_model("memvp")
    ran = blocks_run(model)
    model(random_batch(model.backbone))
    assert ran == list(range(len(model.vision.blocks) - 1))


def test_the_image_is_encoded_once_for_all_decoded_tokens() -> None:
    model = tuned_model("memvp")
    calls = calls_of(model.vision.blocks[0])
    greedy_logits(model, random_batch(model.backbone), 4)
    assert len(calls) == 1


def test_a_memory_shorter_than_the_patches_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="set memory_length to at least 16"):
        MemVP(backbone, tiny_config(MemVP, backbone, memory_length=15))


@pytest.mark.parametrize(("size", "memory_length", "count"), [("7b", 320, 3_879_040), ("13b", 400, 5_487_744)])
def test_published_counts(size: str, memory_length: int, count: int) -> None:
    assert paper_count("memvp", real_size_backbone(size), memory_length=memory_length) == count
