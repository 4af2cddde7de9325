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
from safetensors.torch import load_file, save_file

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


def large(name: str) -> Harm:
    """Return a function that makes a file as long as no real one is, although it takes no room on the disk."""

    def write(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(3 * 2**30)

    return write


def template_that_is_a_pipe(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "tool.jinja")


def shard_elsewhere(folder: Path) -> None:
    os.mkfifo(folder.parent / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "../a.safetensors"}}')


def rope(**fields: Any) -> Harm:
    return change("config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e4, **fields})


def weights(**changes: Any) -> Harm:
    """Return a function that adds or replaces weights."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(load_file(path) | changes, path, metadata={"format": "pt"})

    return write


def rule(stage: str, value: Any) -> Harm:
    return change("tokenizer.json", **{stage: value})


DOUBLED = [{"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}] * 40
TEMPLATE = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] * 10**5
NORM = "model.norm.weight"
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
    "larger than its weights": (change("config.json", vocab_size=2**21), "but its weights have"),
    "labels": (change("config.json", num_labels=10**8), "num_labels is 100000000"),
    "layers of another architecture": (
        change("config.json", model_type="qwen3", num_hidden_layers=10**8),
        "num_hidden_layers is 100000000",
    ),
    "rotation without number": (rope(rope_theta=float("nan")), "rope_parameters.rope_theta is nan"),
    "rotation without limit": (rope(rope_theta=float("inf")), "rope_parameters.rope_theta is inf"),
    "rotation by nothing": (rope(rope_type="yarn", rope_theta=0, factor=0), "config.json"),
    "rotation of many values": (
        rope(rope_type="longrope", short_factor=[1.0] * 10**5, long_factor=[1.0] * 10**5, factor=2.0),
        "short_factor has 100000 values",
    ),
    "attention that is put out": (change("config.json", output_attentions=True), "cannot be loaded"),
    "padding": (change("config.json", pad_token_id=10**6), "config.json"),
    "rotation": (change("config.json", rope_parameters={"rope_type": "nothing", "rope_theta": 1.0}), "nothing"),
    "rotation of another type": (change("config.json", rope_parameters=[1]), "config.json"),
    "quantised": (change("config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "quantization"),
    "empty tokenizer": (replace("tokenizer.json", b""), "tokenizer.json: not valid JSON"),
    "damaged tokenizer": (replace("tokenizer.json", b'{"version": "1.0", "model": {}}'), "has no tokenizer"),
    "deep tokenizer": (replace("tokenizer.json", DEEP), "tokenizer.json: not valid JSON"),
    "special token": (change("tokenizer_config.json", bos_token=5), "tokenizer"),
    "special token of two": (change("tokenizer_config.json", bos_token=["<s>", "</s>"]), "tokenizer"),
    "special token without text": (change("tokenizer_config.json", bos_token={"lstrip": True}), "tokenizer"),
    "length": (change("tokenizer_config.json", model_max_length="long"), "tokenizer"),
    "tokenizer class": (change("tokenizer_config.json", tokenizer_class=[1]), "tokenizer"),
    "larger tokenizer": (change("config.json", vocab_size=200), "its tokenizer has ids up to 263"),
    "empty weights": (replace("model.safetensors", b""), "but its weights have 0 bytes"),
    "empty state dict": (lambda folder: save_file({}, folder / "model.safetensors"), "but its weights"),
    "weights that are a folder": (
        lambda folder: ((folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()),
        "but its weights have 0 bytes",
    ),
    "config that is a pipe": (endless("config.json"), "config.json is a pipe"),
    "config too large": (large("config.json"), "config.json is larger than 128.0 MiB"),
    "tokenizer too large": (large("tokenizer.json"), "tokenizer.json is larger than 128.0 MiB"),
    "added tokens too large": (large("added_tokens.json"), "added_tokens.json is larger than 128.0 MiB"),
    "normaliser that doubles": (rule("normalizer", {"type": "Sequence", "normalizers": DOUBLED}), "normalizer makes"),
    "decoder that doubles": (rule("decoder", {"type": "Sequence", "decoders": DOUBLED}), "decoder makes"),
    "long template": (rule("post_processor", {"type": "TemplateProcessing", "single": TEMPLATE}), "100,000 entries"),
    "weight of another shape": (weights(**{NORM: torch.zeros(7)}), f"{NORM} has shape (7,), not (32,)"),
    "weight of whole numbers": (weights(**{NORM: torch.zeros(32, dtype=torch.int64)}), f"{NORM} is stored as I64"),
    "complex weight": (weights(**{NORM: torch.zeros(32, dtype=torch.complex64)}), f"{NORM} is stored as C64"),
    "weight too many": (weights(**{"odd\x1b": torch.zeros(1)}), r"config.json says nothing of 'odd\x1b'"),
    "template that is a pipe": (template_that_is_a_pipe, "tool.jinja is a pipe"),
    "shard that is elsewhere": (shard_elsewhere, "names '../a.safetensors'"),
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
    "too long texts": (change(CLIP, "model_cfg", "text_cfg", context_length=10**5), "context_length is 100000"),
    "too wide an embedding": (change(CLIP, "model_cfg", embed_dim=2**22), "but its weights have"),
    "residual network": (change(CLIP, "model_cfg", "vision_cfg", layers=[10**5] * 4), "vision_cfg.layers is a list"),
    "too large images of another shape": (
        change(CLIP, "model_cfg", "vision_cfg", image_size=[10**6, 10**6]),
        "image_size is [1000000, 1000000]",
    ),
    "model of timm": (change(CLIP, "model_cfg", "vision_cfg", timm_model_name="x"), "timm_model_name"),
    "text model of the hub": (change(CLIP, "model_cfg", "text_cfg", hf_model_name="x/y"), "hf_model_name"),
    "images": (change(CLIP, preprocess_cfg=5), "cannot be loaded"),
    "config that is a pipe": (endless(CLIP), "open_clip_config.json is a pipe"),
    "config without end": (endless(CLIP, "/dev/zero"), "open_clip_config.json is a pipe or a device"),
    "config too large": (large(CLIP), "open_clip_config.json is larger than 128.0 MiB"),
    "weights that are a pipe": (endless(WEIGHTS), "is a pipe"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights"),
    "empty weights": (replace(WEIGHTS, b""), "but its weights have 0 bytes"),
    "empty state dict": (lambda folder: save_file({}, folder / WEIGHTS), "but its weights have"),
    "another state dict": (lambda folder: save_file({"a": torch.zeros(9999)}, folder / WEIGHTS), "cannot be loaded"),
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
