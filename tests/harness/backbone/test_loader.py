"""The backbone loader: random sizes, names, and one clear line for whatever is missing."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from harness.backbone import requirements
from harness.backbone.loader import llm_config, load_backbone
from harness.config.presets import PRESETS, BackboneSpec, resolve_spec
from harness.errors import UserError
from tests.folders import CLIP_CONFIG
from tests.loading import logits, refuses

SIZES = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
SMALL = BackboneSpec("small", None, None, SIZES, CLIP_CONFIG, "small")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub and an empty cache."""
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(requirements, "try_to_load_from_cache", lambda repo, file: None)


# Random weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_on_the_cpu(dtype: torch.dtype) -> None:
    backbone = load_backbone(SMALL, weights="random", dtype=dtype)
    assert (backbone.dtype, backbone.weights, backbone.hidden_size, backbone.num_layers) == (dtype, "random", 32, 4)
    assert not backbone.llm.training and not backbone.vision.training
    assert not any(p.requires_grad for module in backbone.modules() for p in module.parameters())
    assert torch.isfinite(logits(backbone)).all()
    assert backbone.llm.model.layers[0].mlp.up_proj.weight.float().std() == pytest.approx(0.02, rel=0.2)
    assert (backbone.llm.model.norm.weight == 1).all()
    features = backbone.vision.features(torch.randn(2, 3, 32, 32), [2, 4], normalize=True)
    assert [tuple(feature.shape) for feature in features] == [(2, 17, 32)] * 2
    assert all(torch.isfinite(feature).all() for feature in features)


def test_random_rotary_frequencies_are_the_computed_ones() -> None:
    backbone = load_backbone(SMALL, weights="random")
    built = LlamaForCausalLM(llm_config(SMALL))
    torch.testing.assert_close(backbone.llm.model.rotary_emb.inv_freq, built.model.rotary_emb.inv_freq)


def test_random_follows_the_seed() -> None:
    first, same, other = (load_backbone(SMALL, weights="random", seed=seed).fingerprint() for seed in (0, 0, 1))
    assert first == same != other


def test_random_ties_embeddings() -> None:
    tied = replace(SMALL, llm_config={**SIZES, "tie_word_embeddings": True})
    llm = load_backbone(tied, weights="random").llm
    assert llm.lm_head.weight is llm.model.embed_tokens.weight


@pytest.mark.parametrize("model", ["7b", "13b", "slice", "bench"])
def test_presets_on_the_meta_device_hold_no_memory(model: str) -> None:
    backbone = load_backbone(resolve_spec(model), weights="random", device="meta")
    parameters = [p for module in backbone.modules() for p in module.parameters()]
    assert {p.device.type for p in parameters} == {"meta"}
    if model == "7b":
        assert sum(p.numel() for p in backbone.llm.parameters()) == 6_738_415_616
        assert (backbone.vision.width, backbone.vision.num_layers, backbone.vision.num_patches) == (1024, 24, 256)


# Fingerprints


def test_fingerprint_covers_every_tensor() -> None:
    backbone = load_backbone(SMALL, weights="random")
    before = backbone.fingerprint()
    tensors = [t for module in (backbone.llm, backbone.vision) for t in module.state_dict().values()]
    for tensor in tensors:
        kept = tensor.flatten()[-1].clone()
        tensor.view(-1)[-1] = kept + 1
        assert backbone.fingerprint() != before
        tensor.view(-1)[-1] = kept
    assert backbone.fingerprint() == before


def test_fingerprint_of_a_large_backbone_reads_samples_of_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_backbone(SMALL, weights="random").fingerprint()
    monkeypatch.setattr("harness.backbone.loader.FULL_HASH_BYTES", 0)
    monkeypatch.setattr("harness.backbone.loader.SAMPLES_PER_TENSOR", 7)
    backbone = load_backbone(SMALL, weights="random")
    before = backbone.fingerprint()
    assert before != whole
    for module in (backbone.llm, backbone.vision):
        for tensor in module.state_dict().values():
            tensor.mul_(1.5).add_(0.1)
            after = backbone.fingerprint()
            assert after != before
            before = after


def test_fingerprint_tells_dtypes_apart() -> None:
    single, half = (load_backbone(SMALL, weights="random", dtype=d) for d in (torch.float32, torch.bfloat16))
    assert single.fingerprint() != half.fingerprint()


# Names


def test_a_misspelt_preset() -> None:
    with pytest.raises(UserError, match=r"--model tyny: no such preset; did you mean tiny\?"):
        resolve_spec("tyny")
    with pytest.raises(UserError, match=r"presets: tiny, .*any other model goes by --llm"):
        resolve_spec("vicuna")


@pytest.mark.parametrize("model", ["slice", "bench"])
def test_sizes_without_weights(model: str) -> None:
    refuses(f"--model {model}: .*give --weights random", PRESETS[model])


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("ViT-L-14:openai", "OpenAI weights need QuickGELU; give ViT-L-14-quickgelu:openai"),
        ("ViT-L-41:openai", "open_clip knows no model ViT-L-41; did you mean ViT-"),
        ("ViT-L-14-quickgelu:opnai", "open_clip has these weights for ViT-L-14-quickgelu: .*openai"),
        ("ViT-L-14", "open_clip has these weights for ViT-L-14: .*laion2b_s32b_b82k"),
        ("local-dir:nowhere", "no open_clip_config.json there"),
    ],
)
def test_vision_towers_that_are_none(clip: str, message: str, spec: BackboneSpec, offline: None) -> None:
    refuses(f"--clip {clip}: {message}", replace(spec, clip=clip))


def test_a_vision_tower_that_is_no_vit() -> None:
    refuses("--clip RN50: is no open_clip vision transformer", resolve_spec("7b", clip="RN50"), **RANDOM_META)


RANDOM_META: dict[str, Any] = {"weights": "random", "device": "meta"}


@pytest.mark.parametrize("clip", ["ViT-B-32", "ViT-L-14-336-quickgelu:openai"])
def test_random_weights_need_no_weights_name(clip: str) -> None:
    backbone = load_backbone(resolve_spec("7b", clip=clip), **RANDOM_META)
    assert backbone.vision.num_patches == {"ViT-B-32": 49}.get(clip, 576)


# What is missing


def test_weights_that_are_not_here_and_no_hub(offline: None) -> None:
    refuses(
        r"weights of huggyllama/llama-7b .*--llm PATH; .*ViT-L-14-quickgelu:openai .*--clip local-dir:FOLDER; "
        r"the model hub cannot be reached; .*--model tiny.*--weights random",
        PRESETS["7b"],
    )


def test_a_config_that_is_not_here_and_no_hub(offline: None) -> None:
    refuses(
        "some/model: is not on this machine, and the hub cannot be reached",
        resolve_spec("7b", llm="some/model"),
        weights="random",
    )


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_too_little_memory(weights: str, spec: BackboneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "free_memory", lambda device: 1000)
    refuses(
        r"--model small-llm-small-clip: the weights need .*GiB as float32 and cpu has .*--dtype bfloat16",
        spec,
        weights=weights,
    )


def test_the_meta_device_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "free_memory", lambda device: 0)
    load_backbone(SMALL, **RANDOM_META)


def test_whether_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(requirements.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert requirements.hub_reachable()
        monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", True)
        assert not requirements.hub_reachable()
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", False)
    assert not requirements.hub_reachable(timeout_s=0.5)
