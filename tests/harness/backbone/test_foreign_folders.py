"""Folders from elsewhere: none of their code runs, and each fault is one line that names the folder."""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.command_line import Run, quick_run

Harm = Callable[[Path], object]
HARNESS = Path(__file__).parents[3] / "harness"


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked on the terminal; each question is answered with yes."""
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    return asked


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def change(name: str, *outer: str, **fields: Any) -> Harm:
    """Return a function that changes fields of a JSON file, inside the objects that `outer` names."""

    def write(folder: Path) -> None:
        inner = content = json.loads((folder / name).read_text())
        for key in outer:
            inner = inner[key]
        inner.update(fields)
        (folder / name).write_text(json.dumps(content))

    return write


def replace(name: str, content: bytes) -> Harm:
    return lambda folder: (folder / name).write_bytes(content)


def code(name: str, config: str, **fields: Any) -> Harm:
    """Return a function that adds a Python file which leaves a trace, and a config that names it."""

    def write(folder: Path) -> None:
        trace = folder.parent / "trace"
        source = f"open({str(trace)!r}, 'w')\nclass Mine:\n    pass\n"
        (folder / name).write_text(source)
        change(config, **fields)(folder)

    return write


def pickled(name: str, *instead_of: str) -> Harm:
    """Return a function that puts a pickle which leaves a trace in place of other files."""

    def write(folder: Path) -> None:
        for other in instead_of:
            (folder / other).unlink()
        (folder / name).write_bytes(pickle.dumps(Payload(folder.parent / "trace")))

    return write


def pickled_shard(folder: Path) -> None:
    pickled("shard.bin", "model.safetensors")(folder)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "shard.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled_adapter(folder: Path) -> None:
    pickled("adapter_model.bin")(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x/y"}))


AUTO_MAP = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
TOKENIZER_MAP = {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}

LLM_CODE: dict[str, Harm] = {
    "config of an unknown type": code("mine.py", "config.json", auto_map=AUTO_MAP, model_type="mine"),
    "config": code("mine.py", "config.json", auto_map=AUTO_MAP),
    "tokenizer": code("mine.py", "tokenizer_config.json", auto_map=TOKENIZER_MAP, tokenizer_class="Mine"),
    "generation": code("custom_generate.py", "config.json", custom_generate="mine"),
    "attention": code("mine.py", "config.json", attn_implementation="some/kernel"),
    "pickled weights": pickled("pytorch_model.bin", "model.safetensors"),
    "a pickle with another name": pickled("model.safetensors", "model.safetensors"),
    "a pickled shard": pickled_shard,
    "a pickled adapter": pickled_adapter,
}
CLIP_CODE: dict[str, Harm] = {
    "pickled weights": pickled("open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
    "a pickle with another name": pickled("open_clip_model.safetensors", "open_clip_model.safetensors"),
    "a pickle of another ending": pickled("model.pth", "open_clip_model.safetensors"),
}


def refused(run: Run, llm: Path, clip: Path, data: Path, tmp_path: Path) -> str:
    """Run a method on two folders, and return the only line that a refusal prints."""
    done = run(*quick_run(llm, clip, data, tmp_path / "results"), "--methods", "memvp", "--device", "cpu")
    assert done.code == 2, done
    (line,) = done.err.splitlines()
    assert line.isprintable() and line.startswith("error: ")
    return line


@pytest.mark.parametrize("harm", LLM_CODE.values(), ids=LLM_CODE)
def test_no_code_of_a_language_model_runs(
    harm: Harm, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path, questions: list[object]
) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    harm(folder)
    done = call(
        *quick_run(folder, small_clip, mini_set, tmp_path / "results"),
        *("--methods", "memvp", "--device", "cpu", "--limit", "4"),
    )
    assert not (tmp_path / "trace").exists() and not questions
    assert done.code == 0 or (done.code == 2 and str(folder) in done.err and len(done.err.splitlines()) == 1), done


@pytest.mark.parametrize("harm", CLIP_CODE.values(), ids=CLIP_CODE)
def test_no_code_of_a_vision_tower_runs(
    harm: Harm, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path, questions: list[object]
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    harm(folder)
    assert str(folder) in refused(call, small_llm, folder, mini_set, tmp_path)
    assert not (tmp_path / "trace").exists() and not questions


def test_every_loader_of_transformers_is_told_to_run_no_code() -> None:
    calls = [
        (path.name, node)
        for path in HARNESS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
    ]
    assert len(calls) >= 3
    for name, node in calls:
        told = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert told.get("trust_remote_code") == "False", (name, node.lineno)


def endless(name: str, target: str | None = None) -> Harm:
    """Return a function that puts a pipe that nobody writes to, or a link to a device, in place of a file."""

    def write(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name) if target is None else (folder / name).symlink_to(target)

    return write


DEEP = b"[" * 100_000 + b"]" * 100_000
LLM_FAULTS: dict[str, tuple[Harm, str]] = {
    "empty config": (replace("config.json", b""), "config.json"),
    "list as config": (replace("config.json", b"[]"), "config.json"),
    "deep config": (replace("config.json", DEEP), "config.json"),
    "bytes as config": (replace("config.json", b"\xff\xfe\x00"), "config.json"),
    "activation": (change("config.json", hidden_act="nothing"), "hidden_act 'nothing'"),
    "activation of another type": (change("config.json", hidden_act=["silu"]), "hidden_act"),
    "too many layers": (change("config.json", num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "too wide": (change("config.json", hidden_size=2**62), "hidden_size"),
    "NaN": (change("config.json", rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
    "padding": (change("config.json", pad_token_id=10**6), "config.json"),
    "rotation": (change("config.json", rope_parameters={"rope_type": "nothing", "rope_theta": 1.0}), "nothing"),
    "rotation of another type": (change("config.json", rope_parameters=[1]), "config.json"),
    "quantised": (change("config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "quantization"),
    "empty tokenizer": (replace("tokenizer.json", b""), "has no tokenizer"),
    "damaged tokenizer": (replace("tokenizer.json", b'{"version": "1.0", "model": {}}'), "has no tokenizer"),
    "deep tokenizer": (replace("tokenizer.json", DEEP), "has no tokenizer"),
    "special token": (change("tokenizer_config.json", bos_token=5), "tokenizer"),
    "special token of two": (change("tokenizer_config.json", bos_token=["<s>", "</s>"]), "tokenizer"),
    "special token without text": (change("tokenizer_config.json", bos_token={"lstrip": True}), "tokenizer"),
    "length": (change("tokenizer_config.json", model_max_length="long"), "tokenizer"),
    "tokenizer class": (change("tokenizer_config.json", tokenizer_class=[1]), "tokenizer"),
    "larger tokenizer": (change("config.json", vocab_size=200), "its tokenizer has ids up to 263"),
    "empty weights": (replace("model.safetensors", b""), "cannot be loaded"),
    "empty state dict": (lambda folder: save_file({}, folder / "model.safetensors"), "not have"),
    "weights that are a folder": (
        lambda folder: ((folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()),
        "cannot be loaded",
    ),
    "config that is a pipe": (endless("config.json"), "config.json is a pipe"),
    "tokenizer without end": (endless("tokenizer.json", "/dev/zero"), "tokenizer.json is a pipe or a device"),
    "weights without end": (endless("model.safetensors", "/dev/zero"), "model.safetensors is a pipe or a device"),
    "generation config": (replace("generation_config.json", b"[]"), "cannot be loaded"),
}
CLIP = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CLIP_FAULTS: dict[str, tuple[Harm, str]] = {
    "empty config": (replace(CLIP, b""), "not valid JSON"),
    "list as config": (replace(CLIP, b"[]"), "no model_cfg"),
    "deep config": (replace(CLIP, DEEP), "not valid JSON"),
    "no vision_cfg": (replace(CLIP, b'{"model_cfg": {"embed_dim": 4, "text_cfg": {}}}'), "no vision_cfg"),
    "unknown field": (change(CLIP, "model_cfg", "vision_cfg", colour=1), "colour"),
    "text as size": (change(CLIP, "model_cfg", "vision_cfg", width="wide"), "no model can be built"),
    "patches of no size": (change(CLIP, "model_cfg", "vision_cfg", patch_size=0), "no model can be built"),
    "heads wider than the tower": (change(CLIP, "model_cfg", "vision_cfg", head_width=999), "no model can be built"),
    "too many layers": (change(CLIP, "model_cfg", "vision_cfg", layers=10**9), "vision_cfg.layers is 1000000000"),
    "NaN": (change(CLIP, "model_cfg", "vision_cfg", mlp_ratio=float("nan")), "vision_cfg.mlp_ratio is nan"),
    "too large images": (change(CLIP, "model_cfg", "vision_cfg", image_size=2**23), "image_size is 8388608"),
    "too large a text tower": (change(CLIP, "model_cfg", "text_cfg", vocab_size=2**24, width=2**16), "GiB"),
    "model of timm": (change(CLIP, "model_cfg", "vision_cfg", timm_model_name="x"), "timm_model_name"),
    "text model of the hub": (change(CLIP, "model_cfg", "text_cfg", hf_model_name="x/y"), "hf_model_name"),
    "images": (change(CLIP, preprocess_cfg=5), "cannot be loaded"),
    "config that is a pipe": (endless(CLIP), "open_clip_config.json"),
    "weights that are a pipe": (endless(WEIGHTS), "is a pipe"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights"),
    "empty weights": (replace(WEIGHTS, b""), "cannot be loaded"),
    "empty state dict": (lambda folder: save_file({}, folder / WEIGHTS), "cannot be loaded"),
    "another state dict": (lambda folder: save_file({"a": torch.zeros(1)}, folder / WEIGHTS), "cannot be loaded"),
}


@pytest.mark.parametrize(("harm", "message"), LLM_FAULTS.values(), ids=LLM_FAULTS)
def test_a_faulty_language_model_is_one_line(
    harm: Harm, message: str, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    harm(folder)
    line = refused(call, folder, small_clip, mini_set, tmp_path)
    assert str(folder) in line and message in line


@pytest.mark.parametrize(("harm", "message"), CLIP_FAULTS.values(), ids=CLIP_FAULTS)
def test_a_faulty_vision_tower_is_one_line(
    harm: Harm, message: str, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    harm(folder)
    line = refused(call, small_llm, folder, mini_set, tmp_path)
    assert str(folder) in line and message in line
