"""LLaMA-Adapter: zero gates, the printed formula, and prompts that are projected once."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from methods.llama_adapter import LLaMAAdapter, ZeroInitAttention
from tests.backbones import random_batch, randomise, tiny_backbone, tiny_config, tuned_model
from tests.methods.probes import greedy_logits
from tests.methods.sizes import paper_count, real_size_backbone


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_only_zero_gates_leave_the_base_logits_unchanged(kv_heads: int, padding: Any) -> None:
    bare = tiny_backbone(num_kv_heads=kv_heads)
    model = tuned_model("llama_adapter", tiny_backbone(num_kv_heads=kv_heads))
    batch = random_batch(model.backbone, padding=padding)
    positions = (batch.attention_mask_BL.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        model.method.gates_YN.zero_()
        base = bare.llm(
            input_ids=batch.input_ids_BL, attention_mask=batch.attention_mask_BL, position_ids=positions
        ).logits
        real_BL = batch.attention_mask_BL
        assert torch.equal(model.logits(batch)[real_BL], base[real_BL])
        model.method.gates_YN.fill_(0.1)
        assert not torch.equal(model.logits(batch), base)


def plain_logits(bare: Any, method: LLaMAAdapter, ids_L: Tensor, image_D: Tensor) -> Tensor:
    """Return the logits by the printed formula, one head at a time, `L×V`.

    Args:
        bare: a backbone without a method, equal to that of `method`.
        method: its parameters are used, not its code.
        ids_L: one sample without padding.
        image_D: the image feature; zero for a sample without an image.
    """
    model, config = bare.llm.model, bare.llm.config
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    groups = heads // config.num_key_value_heads
    h = model.embed_tokens(ids_L)
    cos, sin = (t[0] for t in model.rotary_emb(h[None], position_ids=torch.arange(len(ids_L))[None]))
    causal = torch.full((len(ids_L), len(ids_L)), float("-inf")).triu(1)

    def rotate(x: Tensor) -> Tensor:
        return x * cos + torch.cat([-x[:, width // 2 :], x[:, : width // 2]], dim=1) * sin

    first = len(model.layers) - len(method.prompts_YKD)
    for index, layer in enumerate(model.layers):
        attention, x, out = layer.self_attn, layer.input_layernorm(h), []
        for head in range(heads):
            own, shared = (slice(i * width, (i + 1) * width) for i in (head, head // groups))
            w_q, w_k = attention.q_proj.weight[own], attention.k_proj.weight[shared]
            w_v = attention.v_proj.weight[shared]
            q = rotate(x @ w_q.T)
            attended = (q @ rotate(x @ w_k.T).T / width**0.5 + causal).softmax(-1) @ (x @ w_v.T)
            if index >= first:
                prompts = method.prompts_YKD[index - first] + image_D
                read = (q @ (prompts @ w_k.T).T / width**0.5).softmax(-1) @ (prompts @ w_v.T)
                attended = attended + torch.tanh(method.gates_YN[index - first, head]) * read
            out.append(attended)
        h = h + attention.o_proj(torch.cat(out, dim=1))
        h = h + layer.mlp(layer.post_attention_layernorm(h))
    return bare.llm.lm_head(model.norm(h))


@settings(max_examples=8)
@given(st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_logits_equal_the_printed_formula(kv_heads: int, layers: int, prompts: int, flag: bool) -> None:
    size = {"num_kv_heads": kv_heads, "num_layers": 3, "hidden_size": 32}
    bare = tiny_backbone(**size)
    model = tuned_model("llama_adapter", tiny_backbone(**size), num_adapter_layers=layers, num_prompts=prompts)
    randomise(model.method, std=0.5)
    batch = random_batch(bare, 2, 7, 3, "right", [flag, not flag])
    with torch.no_grad():
        features = bare.vision.features(batch.images_BCHW, [2, 4, 6, 8], normalize=True)
        image_BD = model.method.projector(torch.cat([feature[:, 0] for feature in features], dim=-1))
        logits = model.logits(batch)
        for row in range(2):
            real = batch.attention_mask_BL[row]
            image_D = image_BD[row] * batch.has_image_B[row]
            expected = plain_logits(bare, model.method, batch.input_ids_BL[row, real], image_D)
            torch.testing.assert_close(logits[row, real], expected, atol=5e-5, rtol=1e-4)


def test_image_branch_is_a_silu_bottleneck() -> None:
    model = tuned_model("llama_adapter")
    projector, x = model.method.projector, torch.randn(2, 4 * 48, generator=torch.Generator().manual_seed(0))
    hidden = F.silu(x @ projector.down.weight.T + projector.down.bias)
    torch.testing.assert_close(projector(x), hidden @ projector.up.weight.T + projector.up.bias)


def test_the_image_reaches_samples_that_have_one() -> None:
    model = tuned_model("llama_adapter")
    batch = random_batch(model.backbone, 2, has_image=[True, False])
    visual = dict(model.encode(batch))
    with torch.no_grad():
        before = model.logits(batch, visual)
        visual["image_BKD"] = visual["image_BKD"] + 3.0
        after = model.logits(batch, visual)
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0], atol=1e-3)


def test_prompts_are_projected_once_for_a_prompt_and_once_for_its_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tuned_model("llama_adapter"), []
    original = ZeroInitAttention.prompt_memory
    monkeypatch.setattr(ZeroInitAttention, "prompt_memory", lambda self, *a: calls.append(1) or original(self, *a))
    greedy_logits(model, random_batch(model.backbone), 5)
    assert len(calls) == 2 * len(model.method.attentions)


def test_all_but_the_first_two_layers_are_adapted() -> None:
    model = tuned_model("llama_adapter")
    adapted = [isinstance(layer.self_attn, ZeroInitAttention) for layer in model.llm.model.layers]
    assert adapted == [False, False, True, True]


def test_the_language_model_keeps_the_names_of_its_weights() -> None:
    model, bare = tuned_model("llama_adapter"), tiny_backbone()
    assert model.llm.state_dict().keys() == bare.llm.state_dict().keys()


def test_only_prompts_gates_and_projector_are_trained() -> None:
    model = tuned_model("llama_adapter")
    assert {name.split(".")[0] for name, _ in model.method.named_parameters()} == {
        "prompts_YKD",
        "gates_YN",
        "projector",
    }


@pytest.mark.parametrize(
    ("sizes", "config", "message"),
    [
        ({"num_layers": 2}, {}, "0 of 2 decoder layers cannot be adapted"),
        ({}, {"num_adapter_layers": 5}, "set num_adapter_layers between 1 and 4"),
        ({"vision_layers": 6}, {}, "do not divide into 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], config: dict[str, int], message: str) -> None:
    backbone = tiny_backbone(**sizes)
    with pytest.raises(ValueError, match=message):
        LLaMAAdapter(backbone, tiny_config(LLaMAAdapter, backbone, **config))


def test_published_count() -> None:
    assert paper_count("llama_adapter", real_size_backbone("7b")) == 1_758_208
