"""What transformers leaves out where it reads a tokenizer from a file in GGUF: how texts are split before merging."""

from pathlib import Path

from tokenizers.pre_tokenizers import Digits, PreTokenizer, Sequence
from transformers import PreTrainedTokenizerBase

from harness.errors import UserError

DIGITS_APART = ("smollm",)
"""Kinds of byte-level BPE, as `tokenizer.ggml.pre` names them, that split texts at digits and then as GPT-2 does."""


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Give a tokenizer the rule by which its file's kind splits texts. transformers splits as GPT-2 does.

    The rule matters for numerals outside of ASCII: without it, a space before one of them is merged with it.

    Args:
        tokenizer: as transformers read it; changed in place.
        path: the file in GGUF.

    Raises:
        UserError: the file's kind of tokenizer is not known here.
    """
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    kinds = {}
    for name in ("model", "pre"):
        field = fields.get(f"tokenizer.ggml.{name}")
        kinds[name] = "" if field is None else bytes(field.parts[field.data[0]]).decode()
    if kinds["model"] != "gpt2" or kinds["pre"] not in DIGITS_APART:
        kind = "-".join(kinds.values())
        raise UserError(f"--llm {path}: the tokenizer {kind!r} is not known here; give the model in safetensors")
    backend = tokenizer.backend_tokenizer
    as_gpt2: PreTokenizer = backend.pre_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), as_gpt2])
