"""Whether weights are on this machine: the files, not just a config."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.backbone.weights import POINTER, clip_source, llm_fault, missing_weights, require_weights
from harness.config.presets import PRESETS, BackboneSpec
from harness.errors import UserError

INDEX = "model.safetensors.index.json"
CLIP_WEIGHTS = "open_clip_model.safetensors"
Harm = Callable[[Path], object]


def sharded(folder: Path, *there: int) -> None:
    """Divide the weights among three files, of which only some are there."""
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    whole = folder / "model.safetensors"
    for number in there:
        shutil.copy(whole, folder / names[number - 1])
    whole.unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"w{name}": name for name in names}}))


def pointer(name: str) -> Harm:
    return lambda folder: (folder / name).write_bytes(POINTER + b"v1\noid sha256:0\nsize 9976576152\n")


def without(*names: str) -> Harm:
    return lambda folder: [(folder / name).unlink() for name in names]


FAULTS: dict[str, tuple[Harm, str]] = {
    "only a config": (without("model.safetensors", "tokenizer.json"), "has no model.safetensors and no"),
    "a missing shard": (
        lambda folder: sharded(folder, 1, 3),
        f"model-00002-of-00003.safetensors is missing, which {INDEX}",
    ),
    "an index of nothing": (lambda folder: (folder / INDEX).write_text("{}"), "has no weight_map"),
    "no tokenizer": (without("tokenizer.json"), "has no tokenizer"),
    "a pointer": (
        pointer("model.safetensors"),
        "model.safetensors is a git-lfs pointer, not the file itself; run `git lfs pull`",
    ),
    "a tokenizer's pointer": (pointer("tokenizer.json"), "tokenizer.json is a git-lfs pointer"),
}


@pytest.mark.parametrize(("harm", "message"), FAULTS.values(), ids=FAULTS)
def test_a_local_folder_that_is_incomplete(
    harm: Harm, message: str, spec: BackboneSpec, small_llm: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    assert llm_fault(folder) is None
    harm(folder)
    with pytest.raises(UserError) as error:
        require_weights(replace(spec, llm=str(folder)), lambda line: None)
    assert message in str(error.value) and str(folder) in str(error.value)


def test_all_shards_are_enough(small_llm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    sharded(folder, 1, 2, 3)
    assert llm_fault(folder) is None


CLIP_FAULTS: dict[str, tuple[Harm, str]] = {
    "no weights": (without(CLIP_WEIGHTS), "cannot be loaded (has no weights); give open_clip_model.safetensors"),
    "a pickle": (
        lambda folder: (folder / CLIP_WEIGHTS).rename(folder / "open_clip_pytorch_model.bin"),
        "open_clip_pytorch_model.bin may be a pickle, which can run code; give open_clip_model.safetensors",
    ),
    "a pointer": (pointer(CLIP_WEIGHTS), "open_clip_model.safetensors is a git-lfs pointer"),
}


@pytest.mark.parametrize(("harm", "message"), CLIP_FAULTS.values(), ids=CLIP_FAULTS)
def test_a_vision_tower_without_its_weights(
    harm: Harm, message: str, spec: BackboneSpec, small_clip: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    own = replace(spec, clip=f"local-dir:{folder}")
    assert missing_weights(own).lines == []
    harm(folder)
    (line,) = missing_weights(own).lines
    assert line.startswith(f"--clip local-dir:{folder}: {message}")


def test_a_wrong_name_hides_no_other_fault(offline: None) -> None:
    clip, llm = missing_weights(replace(PRESETS["7b"], clip="ViT-L-41:openai")).lines
    assert clip.startswith("--clip ViT-L-41:openai: open_clip has no model ViT-L-41")
    assert "hf download huggyllama/llama-7b" in llm


def test_a_model_in_one_file(spec: BackboneSpec, tmp_path: Path) -> None:
    own = replace(spec, llm=str(tmp_path / "model.gguf"))
    assert missing_weights(own).lines == [
        f"--llm {tmp_path}/model.gguf: no such file; give a file in GGUF that is there"
    ]


@pytest.mark.parametrize("llm", ["./nowhere", "../nowhere", "~/nowhere", "nowhere/", "a/folder/nowhere", "/nowhere"])
def test_a_path_where_nothing_is_is_no_hub_id(llm: str, spec: BackboneSpec) -> None:
    missing = missing_weights(replace(spec, llm=llm))
    advice = "give a folder or hub id of a Llama model"
    assert missing.lines == [f"--llm {llm}: no such folder; {advice}"] and not missing.sources


def test_a_vision_tower_is_fetched_in_safetensors_only() -> None:
    source = clip_source(str(PRESETS["7b"].clip))
    assert source is not None and source.essential == ("open_clip_model.safetensors",)
    assert "open_clip_model.safetensors" in source.patterns and "local-dir:FOLDER of safetensors" in source.remedy


@pytest.mark.parametrize(("model", "size"), [("7b", "13.5 GB"), ("13b", "26.0 GB")])
def test_what_is_said_of_the_presets(model: str, size: str, offline: None) -> None:
    llm, clip = missing_weights(PRESETS[model]).lines
    assert size in llm and "non-commercial" in llm and "not gated" in llm and f"huggyllama/llama-{model}" in llm
    assert "1.7 GB" in clip and "timm/vit_large_patch14_clip_224.openai" in clip
