"""DEHVF as a whole: the printed formula in every ablation, MemVP as its special case, counts and costs."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.dehvf import DEHVF
from methods.memory_forms import Form
from tests.backbones import random_batch, randomise, tiny_backbone, tiny_config, tuned_model
from tests.methods import plain
from tests.methods.probes import FORMS, blocks_run, calls_of, forced_form, greedy_logits, prompts
from tests.methods.sizes import paper_count, real_size_backbone

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    **DEHVF.ablations,
    "mean_keys_only": {"fusion": "mean", "prompts_in": "keys"},
    "mean_values_only": {"fusion": "mean", "prompts_in": "values"},
    "learnable_shared": {"query": "learnable", "separate_queries": False},
    "learnable_values_only": {"query": "learnable", "prompts_in": "values"},
}


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Draw the sizes of one model and one batch that DEHVF accepts."""
    groups = draw(st.integers(1, 3))
    return {
        "batch": draw(st.integers(1, 3)),
        "length": draw(st.integers(4, 8)),
        "has_image": draw(st.lists(st.booleans(), min_size=3, max_size=3)),
        "config": {
            "num_groups": groups,
            "fuser_dim": (heads := draw(st.integers(1, 3))) * draw(st.integers(1, 4)),
            "fuser_heads": heads,
            "fuser_blocks": draw(st.integers(0, 2)),
        },
        "backbone": {
            "num_layers": draw(st.integers(groups, 5)),
            "hidden_size": draw(st.sampled_from([16, 32])),
            "vision_layers": max(2, groups * draw(st.integers(1, 2))) if groups != 1 else draw(st.integers(2, 4)),
            "vision_width": draw(st.sampled_from([16, 24])),
            "image_size": draw(st.sampled_from([16, 24])),
        },
    }


def sharpen(method: DEHVF) -> None:
    """Make the fusion weights differ between features, layers and sides, so that mixing them up changes the output."""
    if method.config.fusion == "adaptive":
        randomise(method.fuser, std=0.7)
        randomise(method.queries, std=0.7)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=3)
@given(case=cases(), form=st.sampled_from(FORMS))
def test_logits_equal_the_printed_formula(variant: str, case: dict[str, Any], form: Form | None) -> None:
    model = tuned_model("dehvf", tiny_backbone(**case["backbone"]), **case["config"], **VARIANTS[variant])
    sharpen(model.method)
    bare = tiny_backbone(**case["backbone"])
    batch = random_batch(bare, case["batch"], case["length"], 3, "right", case["has_image"][: case["batch"]])
    with forced_form(form):
        plain.check_logits(model, bare, batch)


@settings(max_examples=4)
@given(case=cases())
def test_features_have_their_shapes_and_weights_sum_to_one(case: dict[str, Any]) -> None:
    backbone = tiny_backbone(**case["backbone"])
    model = tuned_model("dehvf", backbone, **case["config"])
    sharpen(model.method)
    batch = random_batch(backbone, case["batch"], case["length"], has_image=case["has_image"][: case["batch"]])
    visual = model.encode(batch)
    layers = backbone.num_layers
    features = backbone.vision.num_layers // case["config"]["num_groups"] + 1
    assert visual["s_BEJP"].shape == (case["batch"], 2 * layers, backbone.vision.num_patches, 16)
    assert visual["weights_BYSK"].shape == (case["batch"], layers, 2, features)
    assert (visual["weights_BYSK"] >= 0).all()
    ones = batch.has_image_B.float()[:, None, None].expand(-1, layers, 2)
    torch.testing.assert_close(visual["weights_BYSK"].sum(-1), ones)


@settings(max_examples=5)
@given(case=cases())
def test_with_one_feature_it_is_memvp(case: dict[str, Any]) -> None:
    flags = [True, *case["has_image"]]
    batch = random_batch(tiny_backbone(**case["backbone"]), 4, case["length"], padding="left", has_image=flags)
    results = []
    for name, overrides in {"memvp": {}, "dehvf": {**case["config"], "fusion": "penultimate"}}.items():
        model = tuned_model(name, tiny_backbone(**case["backbone"]), **overrides)
        loss = model(batch)
        loss.backward()
        state = {key: value.detach() for key, value in model.method.named_parameters()}
        gradients = {key: value.grad for key, value in model.method.named_parameters()}
        results.append((state, gradients, loss.detach(), model.logits(batch).detach()))
    (state, gradients, loss, logits), (other_state, other_gradients, other_loss, other_logits) = results
    assert state.keys() == other_state.keys()
    assert all(torch.equal(state[key], other_state[key]) for key in state)
    assert torch.equal(logits, other_logits) and torch.equal(loss, other_loss)
    assert all(torch.equal(gradients[key], other_gradients[key]) for key in gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_empty_memory_without_an_image_is_the_base_model(variant: str) -> None:
    model, bare = tuned_model("dehvf", random=False, **VARIANTS[variant]), tiny_backbone()
    batch = random_batch(bare, 3, 9, has_image=[False] * 3)
    with torch.no_grad():
        assert torch.equal(model.logits(batch), bare.llm(input_ids=batch.input_ids_BL).logits)


def test_without_visual_prompts_no_clip_block_runs_and_images_change_nothing() -> None:
    model = tuned_model("dehvf", fusion="none")
    ran = blocks_run(model)
    batch = random_batch(model.backbone, 2, 8, has_image=[True, True])
    with torch.no_grad():
        other = random_batch(model.backbone, 2, 8, has_image=[False, False])
        assert torch.equal(model.logits(batch), model.logits(other))
    assert not ran


@pytest.mark.parametrize(("variant", "blocks"), [("full", 8), ("no_adaptive_weights", 8), ("no_multi_features", 7)])
def test_only_the_blocks_that_are_used_run(variant: str, blocks: int) -> None:
    model = tuned_model("dehvf", **VARIANTS[variant])
    ran = blocks_run(model)
    model(random_batch(model.backbone))
    assert ran == list(range(blocks))


def test_the_fuser_runs_once_for_all_layers_and_decoded_tokens() -> None:
    model = tuned_model("dehvf")
    calls = calls_of(model.method.fuser)
    greedy_logits(model, random_batch(model.backbone), 4)
    assert len(calls) == 1


def _saved_for_backward(model: Any, batch: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors that a forward pass saves for its backward pass."""
    saved: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    return saved


@pytest.mark.parametrize("form", FORMS)
def test_the_rebuilt_and_the_factored_form_keep_no_matrix_of_a_sample(form: Form | None) -> None:
    """K and M are `B×N×D` per layer. The other two forms keep them, which shows that the test would see them."""
    model = tuned_model("dehvf").train()
    batch = random_batch(model.backbone, 3, 7, has_image=[True] * 3)
    rows, width = model.method.config.memory_length, model.backbone.hidden_size
    with forced_form(form):
        shapes = _saved_for_backward(model, batch)
    large = [s for s in shapes if sorted(s[-2:]) == sorted((rows, width)) and len(s) > 2]
    projected = [s for s in shapes if s[-2:] == (model.vision.num_patches, width) and len(s) > 2]
    assert bool(large or projected) == (form in ("built", "kept"))


def test_blocks_that_do_not_divide_into_groups_are_refused() -> None:
    backbone = tiny_backbone(vision_layers=6)
    with pytest.raises(ValueError, match=r"vision tower.*choose num_groups among"):
        DEHVF(backbone, tiny_config(DEHVF, backbone))


@pytest.mark.parametrize("variant", VARIANTS)
def test_fewer_layers_than_groups_are_refused(variant: str) -> None:
    backbone = tiny_backbone(num_layers=3)
    with pytest.raises(ValueError, match="3 decoder layers cannot read 4 visual groups; set num_groups to at most 3"):
        DEHVF(backbone, tiny_config(DEHVF, backbone, **VARIANTS[variant]))


def test_a_memory_without_visual_entries_may_be_shorter_than_the_patches() -> None:
    model = tuned_model("dehvf", fusion="none", memory_length=3)
    batch = random_batch(model.backbone, has_image=[True, False, True])
    model(batch).backward()
    assert model.method.memory.prompts.keys.shape[0] == 3
    assert greedy_logits(model, prompts(batch), 2).isfinite().all()


def test_a_memory_shorter_than_the_patches_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="set memory_length to at least 16"):
        DEHVF(backbone, tiny_config(DEHVF, backbone, memory_length=15))


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("full", 4_171_520),
        ("no_visual_prompts", 3_219_456),
        ("no_adaptive_weights", 3_879_040),
        ("no_multi_features", 3_879_040),
        ("shared_query", 4_154_944),
        ("keys_only", 4_171_520),
        ("values_only", 4_171_520),
        ("learnable_tokens", 4_171_520 - 24_768 - 2_176 + 32 * 2 * 64),
    ],
)
def test_published_counts_at_7b(variant: str, count: int) -> None:
    assert paper_count("dehvf", real_size_backbone("7b"), **VARIANTS[variant]) == count


@pytest.mark.parametrize(("memory_length", "printed"), [(400, "5.78"), (420, "5.99")])
def test_published_count_at_13b(memory_length: int, printed: str) -> None:
    """The paper's parameter count implies 400 rows. Its Table 5 says 420, which gives another count."""
    count = paper_count("dehvf", real_size_backbone("13b"), memory_length=memory_length)
    assert f"{count / 1e6:.2f}" == printed


# What it shows of its inside


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shares_of_the_blocks_are_the_fusers_weights(variant: str) -> None:
    model = tuned_model("dehvf", tiny_backbone(num_layers=4, vision_layers=4), num_groups=2, **VARIANTS[variant])
    sharpen(model.method)
    with torch.no_grad():
        visual = model.eval().encode(random_batch(model.backbone, batch=3, has_image=[True] * 3))
    found = model.method.diagnostics(visual)
    if model.method.config.fusion != "adaptive":
        assert not found
        return
    by_group, by_layer = (item.values_BNM for item in found)
    assert by_group.shape == (3, 2, 4) and by_layer.shape == (3, 4, 4)
    assert all(len(item.row_labels) == item.values_BNM.shape[1] for item in found)
    torch.testing.assert_close(by_layer.sum(dim=-1), torch.ones(3, 4))
    torch.testing.assert_close(by_layer.unflatten(1, (2, 2)).mean(dim=2), by_group)
    # Layer 0 reads group 0, which holds blocks 1, 2 and the penultimate block 3; layer 3 reads 3, 4 and 3 again.
    weights_BSK = visual["weights_BYSK"][:, 3].mean(dim=1)
    torch.testing.assert_close(by_layer[:, 3, 2], weights_BSK[:, 0] + weights_BSK[:, 2])
    assert not by_layer[:, 0, 3].any() and not by_layer[:, 3, :2].any()
    assert by_layer[0].std(dim=0).max() > 0
