"""Files in GGUF whose header names more than the file has: refused in one line before anything is read for long."""

import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.backbone.language_model import llm_config, pretrained_llm
from harness.config.presets import resolve_spec
from harness.errors import UserError
from tests.folders import save_gguf

pytest.importorskip("gguf", reason="the extra `test` is not installed")
ENDLESS = struct.pack("<Q", 2**60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a valid file."""
    return save_gguf(tmp_path_factory.mktemp("gguf") / "llm.gguf").read_bytes()


def length_of(content: bytes, name: str) -> int:
    """Return where the length of an array is: behind its name, its type, and the type of its values."""
    key = name.encode()
    return content.index(struct.pack("<Q", len(key)) + key) + 8 + len(key) + 8


def replaced(content: bytes, place: int) -> bytes:
    """Return the content with a number of more values than fit into any file."""
    return content[:place] + ENDLESS + content[place + 8 :]


def test_a_whole_file_is_read(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "llm.gguf").write_bytes(whole)
    config = llm_config(resolve_spec("tiny", str(tmp_path / "llm.gguf")))
    assert (config.num_hidden_layers, config.hidden_size) == (2, 16)


def test_a_conversion_shows_no_progress_where_the_output_is_no_terminal(
    whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "llm.gguf").write_bytes(whole)
    pretrained_llm(resolve_spec("tiny", str(tmp_path / "llm.gguf")), torch.device("cpu"), torch.float32)
    assert "Converting" not in "".join(capsys.readouterr())


def test_dense_weights_are_asked_for(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer_gguf = pytest.importorskip("transformers.quantizers.quantizer_gguf")
    warned: list[str] = []
    monkeypatch.setattr(quantizer_gguf.logger, "warning", warned.append)
    (tmp_path / "llm.gguf").write_bytes(whole)
    llm = pretrained_llm(resolve_spec("tiny", str(tmp_path / "llm.gguf")), torch.device("cpu"), torch.bfloat16)
    assert type(llm.model.layers[0].mlp.up_proj) is nn.Linear
    assert not any("packed" in line for line in warned)


@pytest.mark.parametrize("what", ["tensors", "fields", "numbers", "texts", "cut", "empty"])
def test_a_file_that_has_less_than_its_header_says_is_refused(what: str, whole: bytes, tmp_path: Path) -> None:
    damaged = {
        "tensors": lambda: replaced(whole, 8),
        "fields": lambda: replaced(whole, 16),
        "numbers": lambda: replaced(whole, length_of(whole, "tokenizer.ggml.token_type")),
        "texts": lambda: replaced(whole, length_of(whole, "tokenizer.ggml.tokens")),
        "cut": lambda: whole[:-4],
        "empty": lambda: b"",
    }
    path = tmp_path / "llm.gguf"
    path.write_bytes(damaged[what]())
    with pytest.raises(UserError, match=r"llm\.gguf: is no complete file in GGUF \(.+\); give the model again"):
        llm_config(resolve_spec("tiny", str(path)))
