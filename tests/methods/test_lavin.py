"""LaVIN: routing, the modality token, the input, and independence of a sample from its batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.adapters import RoutedAdapter
from methods.base import Batch
from methods.lavin import LaVIN
from methods.tuned import TunedModel
from tests.backbones import alone, random_batch, randomise, tiny_backbone, tiny_config, tuned_model
from tests.methods.sizes import paper_count, real_size_backbone

NUM_FEATURES = 2


def prompts(batch: Batch) -> Batch:
    """All but the last column, to decode from."""
    return replace(
        batch,
        input_ids_BL=batch.input_ids_BL[:, :-1],
        attention_mask_BL=batch.attention_mask_BL[:, :-1],
        labels_BL=None,
    )


def decode(model: TunedModel, batch: Batch, steps: int = 3) -> torch.Tensor:
    with torch.no_grad():
        logits, state = model.prefill(batch)
        seen = [logits]
        for _ in range(steps):
            seen.append(model.step(seen[-1].argmax(-1), state))
    return torch.stack(seen, dim=1)


@settings(max_examples=15, deadline=None)
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


def test_adapters_at_init_are_the_identity_and_their_experts_can_part() -> None:
    torch.manual_seed(0)
    adapter = RoutedAdapter(8, 4, 2, 1.0, 10.0, 0.1)
    x = torch.randn(2, 3, 8)
    assert torch.equal(adapter(x, adapter.route(x)), x)
    assert not torch.equal(adapter.route(x)[..., 0], adapter.route(x)[..., 1])
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
    # Adapters at init ignore the routing, so the modality token could only matter through attention.
    model = tuned_model("lavin", random=False)
    batch = random_batch(model.backbone, padding="left")
    with torch.no_grad():
        before, decoded = model.logits(batch), decode(model, prompts(batch))
        model.method.modality_ED.normal_(std=5.0)
        after = model.logits(batch)
    assert torch.equal(before[:, 1:], after[:, 1:]) and not torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(decoded, decode(model, prompts(batch)))


def test_routing_is_per_sample_sums_to_one_and_follows_the_modality() -> None:
    model = tuned_model("lavin", temperature=0.5)
    batch = prompts(random_batch(model.backbone, 4, padding="left"))
    with torch.no_grad():
        _, state = model.prefill(batch)
    weights_BYE = state.visual["routing_BYE"]
    assert weights_BYE.shape == (4, model.backbone.num_layers, 2) and (weights_BYE > 0).all()
    torch.testing.assert_close(weights_BYE.sum(-1), torch.ones(4, model.backbone.num_layers))
    # Samples 0 and 2 have an image, 1 and 3 have none.
    torch.testing.assert_close(weights_BYE[:2], weights_BYE[2:])
    assert ((weights_BYE[0] - weights_BYE[1]).abs() > 1e-3).any()


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
    expected = decode(model, second)
    with torch.no_grad():
        _, waiting = model.prefill(first)
        following = decode(model, second)
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


def test_only_training_sequences_are_cut() -> None:
    model = tuned_model("lavin", max_length=16)
    batch = random_batch(model.backbone, length=12)
    visual = model.encode(batch)
    assert model.method.build_sequence(model.backbone, batch, visual).key_mask_BT.shape[1] == 16
    unlabelled = model.method.build_sequence(model.backbone, replace(batch, labels_BL=None), visual)
    # Modality, BOS, 7 characters of prefix, the visual tokens, 11 tokens of text.
    assert int(unlabelled.key_mask_BT[0].sum()) == 1 + 7 + NUM_FEATURES + 11


def test_features_come_from_every_fourth_block_and_no_further_block_runs() -> None:
    model = tuned_model("lavin", tiny_backbone(vision_layers=11))
    ran: list[int] = []
    for index, block in enumerate(model.vision.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    batch = random_batch(model.backbone, has_image=[True] * 3)
    visual = model.encode(batch)
    assert visual["tokens_BND"].shape == (3, 2, 64) and ran == list(range(8))
    adapter = sum(p.numel() for p in model.method.vision_adapters[0].parameters())
    assert model.method.reference_only() == {"vision_adapters.unused": 3 * adapter}


def test_a_stride_beyond_the_tower_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="set feature_stride to at most 8"):
        LaVIN(backbone, tiny_config(LaVIN, backbone, feature_stride=9))


@pytest.mark.parametrize(("size", "count"), [("7b", 3_781_296), ("13b", 5_390_080)])
def test_published_counts(size: str, count: int) -> None:
    assert paper_count("lavin", real_size_backbone(size)) == count
