"""The backbone loader: folders, whole and harmed, and other parts in place of a preset's."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaForCausalLM

from harness.backbone.loader import llm_config, load_backbone
from harness.config.presets import PRESETS, BackboneSpec, resolve_spec
from harness.errors import UserError
from methods import get_method
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_config
from tests.folders import CLIP_CONFIG, byte_tokenizer, save_llm
from tests.loading import logits, refuses


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
