"""Quantised language models: their bytes, where they come from, and what is refused before anything is loaded."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbone import quantised
from harness.backbone.language_model import llm_size
from harness.backbone.loader import load_backbone
from harness.config.presets import PRESETS, BackboneSpec, resolve_spec
from harness.errors import UserError
from tests.loading import SMALL, logits, refuses

installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the extra `quantize` is not installed"
)
kinds = pytest.mark.parametrize("quantize", ["8bit", "4bit"])


def bytes_of(llm: Any) -> int:
    """Return what the weights and scales of a language model take, shared tensors once."""
    scales = [
        scale
        for module in llm.modules()
        for scale in (
            getattr(getattr(module, "weight", None), "SCB", None),
            getattr(getattr(getattr(module, "weight", None), "quant_state", None), "absmax", None),
        )
        if scale is not None
    ]
    return sum(tensor.nbytes for tensor in (*llm.parameters(), *scales))


@installed
@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimated_size_is_what_the_weights_take(quantize: str, dtype: torch.dtype) -> None:
    spec = replace(SMALL, quantize=quantize)
    llm = load_backbone(spec, weights="random", dtype=dtype).llm
    plain = llm_size(SMALL, dtype)
    assert llm_size(spec, dtype).bytes == bytes_of(llm) < plain.bytes
    assert llm_size(spec, dtype).parameters == plain.parameters
    assert plain.bytes == bytes_of(load_backbone(SMALL, weights="random", dtype=dtype).llm)


@kinds
def test_the_size_of_7b_follows_from_the_formats(quantize: str) -> None:
    """32 layers with 4 matrices of 4,096² and 3 of 4,096 × 11,008; the rest stays in bfloat16."""
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rows = 32 * (6 * 4096 - 4096 + 2 * 11008)  # 5 matrices have 4,096 rows, and 2 have 11,008
    spec = replace(PRESETS["7b"], quantize=quantize)
    expected = 2 * (6_738_415_616 - layers) + (layers + 4 * rows if quantize == "8bit" else layers * 9 // 16)
    assert llm_size(spec, torch.bfloat16)[:2] == (6_738_415_616, expected)


@installed
@kinds
def test_only_the_linear_layers_of_the_decoder_are_quantised(spec: BackboneSpec, quantize: str) -> None:
    backbone = load_backbone(replace(spec, quantize=quantize))
    plain = load_backbone(spec)
    kept = {name for name, parameter in backbone.llm.named_parameters() if parameter.dtype == torch.float32}
    assert {name for name, _ in plain.llm.named_parameters()} - kept == {
        f"model.layers.{layer}.{part}.weight"
        for layer in range(4)
        for part in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    }
    assert backbone.dtype == torch.float32 and not any(p.requires_grad for p in backbone.llm.parameters())


@installed
@kinds
def test_a_folder_is_quantised_alike_while_it_is_loaded_and_afterwards(spec: BackboneSpec, quantize: str) -> None:
    loaded, afterwards = load_backbone(replace(spec, quantize=quantize)), load_backbone(spec)
    before = afterwards.fingerprint()
    for layer in afterwards.llm.model.layers:
        quantised.quantise_layer(layer, quantize)
    assert loaded.fingerprint() == afterwards.fingerprint() != before
    torch.testing.assert_close(logits(loaded), logits(afterwards))


@installed
@kinds
def test_random_weights_follow_the_seed(quantize: str) -> None:
    spec = replace(SMALL, quantize=quantize)
    first, same, other = (load_backbone(spec, weights="random", seed=seed).fingerprint() for seed in (0, 0, 1))
    assert first == same != other


def test_shapes_alone_need_no_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backbone = load_backbone(replace(SMALL, quantize="4bit"), weights="random", device="meta")
    assert backbone.llm.model.layers[0].mlp.up_proj.weight.shape == (48, 32)


@kinds
def test_without_the_package_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quantize: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    nowhere = replace(PRESETS["tiny"], llm=str(tmp_path / "none"), quantize=quantize)
    refuses(rf"--quantize {quantize}: needs the package bitsandbytes; run `pip install -e '\.\[quantize\]'`", nowhere)


def _no_library(*args: Any) -> None:
    raise RuntimeError("libbitsandbytes.so: cannot open shared object file")


@installed
@pytest.mark.slow
def test_no_kernel_is_downloaded(tmp_path: Path) -> None:
    """bitsandbytes would do it at its import on some CPUs. Nothing is printed either."""
    (tmp_path / "kernels.py").write_text("raise SystemExit('imported')")
    code = "from harness.backbone.quantised import require_quantisation as r; import torch, sys\n"
    code += "for kind in ('8bit', '4bit'): r(kind, torch.device('cpu'))\nassert 'kernels' not in sys.modules"
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@installed
@kinds
def test_where_the_package_cannot_compute_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quantize: str
) -> None:
    for name in ("Linear8bitLt", "Linear4bit"):
        monkeypatch.setattr(f"bitsandbytes.nn.{name}.forward", _no_library)
    nowhere = replace(PRESETS["tiny"], llm=str(tmp_path / "none"), quantize=quantize)
    refuses(rf"--quantize {quantize}: bitsandbytes cannot compute on cpu here \(libbits.*\); leave it out", nowhere)


@kinds
def test_a_quantised_model_has_a_name_of_its_own_and_the_same_recipe(quantize: str) -> None:
    for model, llm in (("tiny", None), ("7b", None), ("7b", "lmsys/vicuna-7b")):
        plain, spec = resolve_spec(model, llm), resolve_spec(model, llm, None, quantize)
        assert (spec.name, spec.base, spec.recipe) == (f"{plain.name}-{quantize}", plain.name, plain.recipe)
        assert (spec.display, spec.packaged) == (f"{plain.display} ({quantize})", plain.packaged)


def test_an_unknown_quantisation_is_refused() -> None:
    with pytest.raises(UserError, match="--quantize 2bit: not supported; give 8bit or 4bit"):
        resolve_spec("tiny", quantize="2bit")
