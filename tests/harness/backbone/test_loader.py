"""A whole backbone: what is loaded or built, and its fingerprint."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from harness.backbone.loader import load_backbone
from harness.config.presets import BackboneSpec, resolve_spec
from methods import get_method
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_config
from tests.folders import byte_tokenizer, save_llm
from tests.loading import SMALL, logits

LOAD = """
import json, resource
from dataclasses import replace
import psutil, torch
from harness.backbone.loader import load_backbone
from harness.config.presets import PRESETS

spec = PRESETS["bench"]
large = dict(spec.llm_config, hidden_size=2048, intermediate_size=5632, num_hidden_layers=4, num_attention_heads=16)
load_backbone(spec, weights="random", dtype=torch.bfloat16)  # what loading any backbone imports
before = psutil.Process().memory_info().rss
backbone = load_backbone(replace(spec, llm_config=large), weights="random", dtype=torch.bfloat16)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = sum(p.numel() * p.element_size() for p in backbone.llm.parameters())
print(json.dumps({"weights": weights, "taken": peak - before}))
"""


# Random weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_have_the_sizes_and_the_dtype_asked_for(dtype: torch.dtype) -> None:
    backbone = load_backbone(SMALL, weights="random", dtype=dtype)
    assert (backbone.dtype, backbone.weights, backbone.hidden_size, backbone.num_layers) == (dtype, "random", 32, 4)


def test_a_backbone_is_frozen_and_in_evaluation_mode() -> None:
    backbone = load_backbone(SMALL, weights="random")
    assert not backbone.llm.training and not backbone.vision.training
    assert not any(p.requires_grad for module in backbone.modules() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_are_plausible(dtype: torch.dtype) -> None:
    backbone = load_backbone(SMALL, weights="random", dtype=dtype)
    assert torch.isfinite(logits(backbone)).all()
    assert backbone.llm.model.layers[0].mlp.up_proj.weight.float().std() == pytest.approx(0.02, rel=0.2)
    assert (backbone.llm.model.norm.weight == 1).all()


def test_random_follows_the_seed() -> None:
    first, same, other = (load_backbone(SMALL, weights="random", seed=seed).fingerprint() for seed in (0, 0, 1))
    assert first == same != other


def test_random_weights_of_a_folder_take_its_sizes_alone(spec: BackboneSpec) -> None:
    backbone = load_backbone(spec, weights="random")
    assert (backbone.hidden_size, backbone.vision.num_patches, backbone.weights) == (32, 16, "random")
    assert backbone.fingerprint() != load_backbone(spec).fingerprint()


@pytest.mark.parametrize("model", ["7b", "13b", "slice", "bench"])
def test_presets_on_the_meta_device_hold_no_memory(model: str) -> None:
    backbone = load_backbone(resolve_spec(model), weights="random", device="meta")
    parameters = [p for module in backbone.modules() for p in module.parameters()]
    assert {p.device.type for p in parameters} == {"meta"}
    if model == "7b":
        assert sum(p.numel() for p in backbone.llm.parameters()) == 6_738_415_616
        assert (backbone.vision.width, backbone.vision.num_layers, backbone.vision.num_patches) == (1024, 24, 256)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak of the process")
def test_random_weights_are_held_once() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["weights"] > 600e6
    assert 0.9 * found["weights"] < found["taken"] < 1.25 * found["weights"]


# Folders


def test_a_folder_loads_what_was_saved(spec: BackboneSpec, small_llm: Path, small_clip: Path) -> None:
    backbone = load_backbone(spec)
    assert (spec.name, spec.display, backbone.weights) == ("small-llm-small-clip", "small-llm", "pretrained")
    saved = LlamaForCausalLM.from_pretrained(small_llm)
    torch.testing.assert_close(logits(backbone), saved(input_ids=torch.arange(5)[None]).logits)
    weights = load_file(small_clip / "open_clip_model.safetensors")
    torch.testing.assert_close(backbone.vision.visual.conv1.weight, weights["visual.conv1.weight"])
    assert backbone.tokenizer.encode("A", add_special_tokens=False) == byte_tokenizer().encode("A")
    assert load_backbone(spec).fingerprint() == backbone.fingerprint()


@pytest.mark.parametrize("method", ["memvp", "dehvf", "lavin"])
def test_grouped_queries_and_tied_embeddings(method: str, tmp_path: Path, small_clip: Path) -> None:
    folder = save_llm(tmp_path / "grouped", num_key_value_heads=2, tie_word_embeddings=True)
    backbone = load_backbone(resolve_spec("7b", str(folder), f"local-dir:{small_clip}"))
    assert backbone.llm.lm_head.weight is backbone.llm.model.embed_tokens.weight
    chosen = get_method(method)
    model = TunedModel(backbone, chosen(backbone, tiny_config(chosen, backbone)))
    loss = model(random_batch(backbone))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None for p in backbone.llm.model.embed_tokens.parameters())


# Fingerprints


@pytest.mark.parametrize(
    ("part", "file", "change"),
    [
        ("llm", "config.json", {"rms_norm_eps": 1e-2}),
        ("llm", "config.json", {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
        ("llm", "tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
        ("clip", "open_clip_config.json", {"model_cfg": {"quick_gelu": True}}),
    ],
)
def test_settings_that_change_numbers_change_a_hash(
    part: str, file: str, change: dict[str, Any], small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    folders = {
        "llm": shutil.copytree(small_llm, tmp_path / "llm"),
        "clip": shutil.copytree(small_clip, tmp_path / "clip"),
    }
    spec = resolve_spec("7b", str(folders["llm"]), f"local-dir:{folders['clip']}")
    before = load_backbone(spec)
    settings = before.settings_hash()
    assert load_backbone(spec).settings_hash() == settings
    path = folders[part] / file
    content = json.loads(path.read_text())
    for name, value in change.items():
        content[name] = {**content[name], **value} if name == "model_cfg" else value
    path.write_text(json.dumps(content))
    after = load_backbone(spec)
    assert after.fingerprint() == before.fingerprint()
    assert after.settings_hash() != settings


def test_the_context_is_a_setting_where_the_rotary_embedding_depends_on_it(small_clip: Path, tmp_path: Path) -> None:
    def hashes(**rope: Any) -> set[str]:
        found = set()
        for context in (512, 1024):
            llm = save_llm(tmp_path / "llm", max_position_embeddings=context, rope_parameters=rope)
            found.add(load_backbone(resolve_spec("7b", str(llm), f"local-dir:{small_clip}")).settings_hash())
        return found

    assert len(hashes(rope_type="default", rope_theta=1e4)) == 1
    assert len(hashes(rope_type="dynamic", rope_theta=1e4, factor=2.0)) == 2


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
