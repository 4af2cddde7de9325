"""LaVIN: routing, the modality token, the input, and independence of a sample from its batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.adapters import RoutedAdapter
from methods.lavin import LaVIN
from tests.backbones import alone, random_batch, randomise, tiny_backbone, tiny_config, tuned_model
from tests.methods.probes import blocks_run, greedy_logits, prompts
from tests.methods.sizes import paper_count, real_size_backbone

NUM_FEATURES = 2


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_routed_adapter_equals_its_formula(groups: int, part: int, rank: int, per_token: bool) -> None:
    width, bottleneck = groups * part, groups * rank
    adapter = RoutedAdapter(width, bottleneck, groups, scale=0.7, temperature=3.0, dropout=0.5).eval()
    randomise(adapter, std=0.7)
    x = torch.randn(2, 4, width, generator=torch.Generator().manual_seed(0))
    source = x if per_token else x[:, :1]
    weights = adapter.route(source)
    logits = source @ adapter.router.weight.T + adapter.router.bias
    torch.testing.assert_close(weights, (logits / 3.0).exp() / (logits / 3.0).exp().sum(-1, keepdim=True))
    a = x @ adapter.down.weight.T + adapter.down.bias
    expected = x
    for expert in range(2):
        dense = torch.block_diag(*adapter.up_EGOA[expert])
        expected = expected + 0.7 * weights[..., expert, None] * (a @ dense.T + adapter.up_bias_EC[expert])
    torch.testing.assert_close(adapter(x, weights), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def initial() -> tuple[RoutedAdapter, Tensor]:
    """A routed adapter at initialisation, and an input."""
    torch.manual_seed(0)
    return RoutedAdapter(8, 4, 2, 1.0, 10.0, 0.1), torch.randn(2, 3, 8)


def test_an_adapter_at_initialisation_is_the_identity(initial: tuple[RoutedAdapter, Tensor]) -> None:
    adapter, x = initial
    assert torch.equal(adapter(x, adapter.route(x)), x)


def test_routing_weights_at_initialisation_differ_between_experts(initial: tuple[RoutedAdapter, Tensor]) -> None:
    """With equal weights, the experts would get equal gradients and never differ."""
    adapter, x = initial
    assert not torch.equal(adapter.route(x)[..., 0], adapter.route(x)[..., 1])


def test_groups_that_do_not_divide_the_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 groups must divide"):
        RoutedAdapter(9, 4, 3, 1.0, 10.0, 0.1)


@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_input_is_modality_bos_prefix_visual_tokens_text(padding: Any) -> None:
    model = tuned_model("lavin")
    batch = random_batch(model.backbone, padding=padding)
    visual = model.encode(batch)
    sequence = model.method.build_sequence(model.backbone, batch, visual)
    embed, encode = model.llm.model.embed_tokens, model.backbone.tokenizer.encode
    for row, flag in enumerate(batch.has_image_B.tolist()):
        text = embed(batch.input_ids_BL[row, batch.attention_mask_BL[row]])
        prefix = embed(torch.tensor(encode("Image: " if flag else "Image: N/A", add_special_tokens=False)))
        tokens = visual["tokens_BND"][row] if flag else text[:0]
        expected = torch.cat([text[:1], prefix, tokens, text[1:]])
        torch.testing.assert_close(sequence.inputs_embeds_BTD[row, sequence.key_mask_BT[row]], expected)
        torch.testing.assert_close(sequence.inputs_embeds_BTD[row, 0], model.method.modality_ED[int(flag)])


def test_nothing_but_itself_attends_to_the_modality_token() -> None:
    # Adapters at initialisation ignore the routing, so the modality token could only matter through attention.
    model = tuned_model("lavin", random=False)
    batch = random_batch(model.backbone, padding="left")
    with torch.no_grad():
        before, decoded = model.logits(batch), greedy_logits(model, prompts(batch), 4)
        model.method.modality_ED.normal_(std=5.0)
        after = model.logits(batch)
    assert torch.equal(before[:, 1:], after[:, 1:]) and not torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(decoded, greedy_logits(model, prompts(batch), 4))


@pytest.fixture
def routing_BYE() -> Tensor:
    """The routing weights after the prompts of four samples; samples 0 and 2 have an image, 1 and 3 have none."""
    model = tuned_model("lavin", temperature=0.5)
    with torch.no_grad():
        _, state = model.prefill(prompts(random_batch(model.backbone, 4, padding="left")))
    return state.visual["routing_BYE"]


def test_routing_weights_of_each_sample_and_layer_are_positive_and_sum_to_one(routing_BYE: Tensor) -> None:
    layers = tiny_backbone().num_layers
    assert routing_BYE.shape == (4, layers, 2) and (routing_BYE > 0).all()
    torch.testing.assert_close(routing_BYE.sum(-1), torch.ones(4, layers))


def test_samples_of_the_same_modality_are_routed_alike(routing_BYE: Tensor) -> None:
    torch.testing.assert_close(routing_BYE[:2], routing_BYE[2:])


def test_samples_of_different_modality_are_routed_differently(routing_BYE: Tensor) -> None:
    assert ((routing_BYE[0] - routing_BYE[1]).abs() > 1e-3).any()


@pytest.mark.parametrize("padding", ["left", "right"])
def test_outputs_do_not_depend_on_who_shares_the_batch(padding: Any) -> None:
    model = tuned_model("lavin", temperature=0.5)
    batch = random_batch(model.backbone, 4, padding=padding)
    visual = model.encode(batch)
    with torch.no_grad():
        together = model.logits(batch, visual)
        real_BT = model.method.build_sequence(model.backbone, batch, visual).key_mask_BT
        for row in range(4):
            single = model.logits(alone(batch, row))[0]
            count = int(real_BT[row].sum())
            torch.testing.assert_close(together[row, real_BT[row]], single[-count:], atol=2e-5, rtol=1e-4)


def test_decoding_equals_running_the_whole_text_at_once() -> None:
    model = tuned_model("lavin", temperature=0.5)
    batch = random_batch(model.backbone, 4, padding="left")
    with torch.no_grad():
        whole = model.logits(batch)
        first, state = model.prefill(prompts(batch))
        second = model.step(batch.input_ids_BL[:, -1], state)
    torch.testing.assert_close(first, whole[:, -2], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(second, whole[:, -1], atol=2e-5, rtol=1e-4)


def test_a_batch_leaves_nothing_behind_for_the_next() -> None:
    model = tuned_model("lavin", temperature=0.5)
    first = prompts(random_batch(model.backbone, 3, seed=1, padding="left"))
    second = prompts(random_batch(model.backbone, 3, seed=2, padding="left", has_image=[False, True, True]))
    expected = greedy_logits(model, second, 4)
    with torch.no_grad():
        _, waiting = model.prefill(first)
        following = greedy_logits(model, second, 4)
        resumed = model.step(torch.tensor([3, 4, 5]), waiting)
        _, fresh = model.prefill(first)
        assert torch.equal(resumed, model.step(torch.tensor([3, 4, 5]), fresh))
    assert torch.equal(expected, following)


def test_training_keeps_no_routing_weights() -> None:
    model = tuned_model("lavin")
    made: list[dict[str, Any]] = []
    original = model.method.layer_inputs
    model.method.layer_inputs = lambda *a: made.append(original(*a)) or made[-1]
    model(random_batch(model.backbone))
    assert made[0]["routing"] == [None] * model.backbone.num_layers


def test_training_sequences_are_cut() -> None:
    model = tuned_model("lavin", max_length=16)
    batch = random_batch(model.backbone, length=12)
    assert model.method.build_sequence(model.backbone, batch, model.encode(batch)).key_mask_BT.shape[1] == 16


def test_sequences_without_labels_are_not_cut() -> None:
    model = tuned_model("lavin", max_length=16)
    batch = replace(random_batch(model.backbone, length=12), labels_BL=None)
    unlabelled = model.method.build_sequence(model.backbone, batch, model.encode(batch))
    # Modality, BOS, 7 characters of prefix, the visual tokens, 11 tokens of text.
    assert int(unlabelled.key_mask_BT[0].sum()) == 1 + 7 + NUM_FEATURES + 11


def test_every_fourth_block_gives_a_visual_token_and_no_later_block_runs() -> None:
    model = tuned_model("lavin", tiny_backbone(vision_layers=11))
    ran = blocks_run(model)
    visual = model.encode(random_batch(model.backbone, has_image=[True] * 3))
    assert visual["tokens_BND"].shape == (3, 2, 64)
    assert ran == list(range(8))


def test_adapters_of_blocks_that_never_run_are_counted_as_reference_only() -> None:
    model = tuned_model("lavin", tiny_backbone(vision_layers=11))
    adapter = sum(p.numel() for p in model.method.vision_adapters[0].parameters())
    assert model.method.reference_only() == {"vision_adapters.unused": 3 * adapter}


def test_a_stride_beyond_the_tower_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="set feature_stride to at most 8"):
        LaVIN(backbone, tiny_config(LaVIN, backbone, feature_stride=9))


@pytest.mark.parametrize(("size", "count"), [("7b", 3_781_296), ("13b", 5_390_080)])
def test_published_counts(size: str, count: int) -> None:
    assert paper_count("lavin", real_size_backbone(size)) == count
