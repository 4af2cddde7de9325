"""The backbone loader: random sizes, local folders, and one clear line for whatever is missing."""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaForCausalLM

from harness import requirements
from harness.backbone import Backbone, llm_config, load_backbone
from harness.errors import UserError
from harness.presets import PRESETS, BackboneSpec, resolve_spec
from methods import get_method
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_config
from tests.folders import CLIP_CONFIG, byte_tokenizer, save_llm

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


@pytest.fixture
def spec(small_llm: Path, small_clip: Path) -> BackboneSpec:
    """A random backbone on disk."""
    return resolve_spec("tiny", str(small_llm), f"local-dir:{small_clip}")


def logits(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone.llm(input_ids=torch.arange(5)[None]).logits


def refuses(message: str, spec: BackboneSpec, **options: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_backbone(spec, **options)
    assert "\n" not in str(error.value)


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
    monkeypatch.setattr("harness.backbone.FULL_HASH_BYTES", 0)
    monkeypatch.setattr("harness.backbone.SAMPLES_PER_TENSOR", 7)
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


# Folders


@pytest.mark.parametrize(
    ("model", "llm", "clip", "name", "recipe"),
    [
        ("13b", None, None, "13b", "13b"),
        ("13b", "/weights/llama-13b", None, "13b", "13b"),
        ("13b", "/weights/vicuna-13b", None, "vicuna-13b", "13b"),
        ("7b", "lmsys/vicuna-7b", "ViT-B-32:openai", "vicuna-7b-ViT-B-32-openai", "7b"),
        ("7b", None, "ViT-B-32:openai", "7b-ViT-B-32-openai", "7b"),
        ("tiny", "lmsys/vicuna-7b", None, "vicuna-7b", "7b"),
        ("tiny", "/elsewhere/llm", None, "llm", "7b"),
        ("7b", "/weights/tiny", None, "tiny-custom", "7b"),
        ("7b", "/weights/..", None, "unnamed", "7b"),
    ],
)
def test_other_parts_name_the_model_and_keep_the_recipe(
    model: str, llm: str | None, clip: str | None, name: str, recipe: str
) -> None:
    spec = resolve_spec(model, llm, clip)
    assert (spec.name, spec.recipe) == (name, recipe)
    assert spec.llm == (llm or PRESETS[model].llm) and spec.clip == (clip or PRESETS[model].clip)


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


def test_random_weights_of_a_folder_take_its_sizes_alone(spec: BackboneSpec) -> None:
    backbone = load_backbone(spec, weights="random")
    assert (backbone.hidden_size, backbone.vision.num_patches, backbone.weights) == (32, 16, "random")
    assert backbone.fingerprint() != load_backbone(spec).fingerprint()


def test_a_folder_that_lacks_a_tensor_is_not_filled_with_noise(tmp_path: Path, small_llm: Path, spec: Any) -> None:
    shutil.copytree(small_llm, tmp_path / "llm")
    weights = load_file(tmp_path / "llm" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "llm" / "model.safetensors", metadata={"format": "pt"})
    refuses(r"lack model.layers.1.mlp.up_proj.weight \(1 in all\)", replace(spec, llm=str(tmp_path / "llm")))


def test_a_folder_that_is_only_called_like_a_preset_is_not_taken_for_it(tmp_path: Path, small_llm: Path) -> None:
    folder = shutil.copytree(small_llm, tmp_path / "llama-7b")
    named = resolve_spec("7b", llm=str(folder))
    assert named.name == "7b"
    with pytest.raises(
        UserError, match=r"llama-7b: is called like the model of 7b, but its .* is \d+, not \d+; rename"
    ):
        llm_config(named)


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


def _pickled_weights(folder: Path) -> None:
    _without_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")


def _other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _not_a_llama(folder: Path) -> None:
    GPT2Config().save_pretrained(folder)


def _sizes(**sizes: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sizes))

    return write


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _no_bos(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_without_weights, "cannot be loaded .*safetensors"),
        (_cut_weights, "cannot be loaded"),
        (_pickled_weights, "cannot be loaded .*safetensors"),
        (_other_sizes, "cannot be loaded"),
        (_no_config, "no usable model config there"),
        (_broken_config, "no usable model config there"),
        (_not_a_llama, "is a gpt2 model; give one of the Llama architecture"),
        (_sizes(hidden_size=66), "no usable model config there .*66.*heads"),
        (_sizes(hidden_size="big"), "no usable model config there .*hidden_size.*'big'"),
        (_sizes(hidden_size=-4), "config.json: hidden_size is -4; it must be a whole number above 0"),
        (_sizes(num_key_value_heads=3), "config.json: num_key_value_heads 3 does not divide num_attention_heads"),
        (_sizes(head_dim=15), ".*head_dim.*15"),
        (_no_tokenizer, "no tokenizer there"),
        (_no_bos, "its tokenizer has no bos_token_id"),
    ],
)
def test_a_folder_that_is_no_model(
    harm: Callable[[Path], None], message: str, tmp_path: Path, small_llm: Path, spec: BackboneSpec
) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    harm(folder)
    refuses(f"^(--llm )?{folder}: {message}", replace(spec, llm=str(folder)))


def _no_clip_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def _cut_clip_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").write_bytes(b"not safetensors")


def _no_clip_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def _other_clip_sizes(folder: Path) -> None:
    config = {**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], "width": 40}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_no_clip_weights, "cannot be loaded"),
        (_cut_clip_weights, "cannot be loaded"),
        (_other_clip_sizes, "cannot be loaded"),
        (_no_clip_config, "no open_clip_config.json there"),
    ],
)
def test_a_folder_that_is_no_vision_tower(
    harm: Callable[[Path], None], message: str, tmp_path: Path, small_clip: Path, spec: BackboneSpec
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    harm(folder)
    refuses(f"--clip local-dir:{folder}: {message}", replace(spec, clip=f"local-dir:{folder}"))


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
