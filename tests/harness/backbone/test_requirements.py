"""What a backbone needs before it can be loaded: names that exist, weights that are available, and memory."""

from dataclasses import replace

import pytest
import torch

from harness.backbone import requirements
from harness.backbone.loader import load_backbone
from harness.backbone.requirements import GIB
from harness.config.presets import PRESETS, BackboneSpec
from tests.loading import RANDOM_META, SMALL, refuses


@pytest.mark.parametrize("model", ["slice", "bench"])
def test_sizes_without_weights(model: str) -> None:
    refuses(f"--model {model}: .*give --weights random", PRESETS[model])


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (
            "ViT-L-14:openai",
            "these weights need QuickGELU, which ViT-L-14 does not have; give ViT-L-14-quickgelu:openai",
        ),
        ("ViT-L-14:metaclip_400m", "these weights need QuickGELU, .*; give ViT-L-14-quickgelu:metaclip_400m"),
        ("ViT-L-41:openai", "open_clip has no model ViT-L-41; did you mean ViT-"),
        ("ViT-L-14-quickgelu:opnai", "open_clip has these weights for ViT-L-14-quickgelu: .*openai"),
        ("ViT-L-14", "open_clip has these weights for ViT-L-14: .*laion2b_s32b_b82k"),
        ("local-dir:nowhere", "has no open_clip_config.json"),
    ],
)
def test_vision_towers_that_are_none(clip: str, message: str, spec: BackboneSpec, offline: None) -> None:
    refuses(f"--clip {clip}: {message}", replace(spec, clip=clip))


def test_weights_that_are_not_here_and_no_hub(offline: None) -> None:
    refuses(
        r"not on this machine: the weights of LLaMA-7B \(13\.5 GB, licence: .*\) from \S+/huggyllama/llama-7b into .*; "
        r"downloads are switched off .*; run `hf download .*--llm PATH, .*--model tiny.*--weights random",
        PRESETS["7b"],
    )


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_too_little_memory(weights: str, spec: BackboneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "free_memory", lambda device: 1000)
    refuses(
        r"--model small-llm-small-clip: the weights need \d+ KiB in float32, but cpu has 1,000 B free; .*--dtype",
        spec,
        weights=weights,
    )


def test_what_torch_keeps_of_another_model_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are hashed before the first run loads them again, and a GPU may have no room for both."""
    kept = [14 * GIB]
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (24 * GIB - sum(kept), 24 * GIB))
    gpu = torch.device("cuda", 0)
    assert requirements.free_memory(gpu) == 24 * GIB
    kept.append(14 * GIB)
    requirements.require_free_memory(14 * GIB, torch.bfloat16, gpu, "--model 7b")


def test_the_meta_device_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "free_memory", lambda device: 0)
    load_backbone(SMALL, **RANDOM_META)
