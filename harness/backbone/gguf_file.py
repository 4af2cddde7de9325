"""What transformers leaves out where it reads a file in GGUF: bounds, how texts are split before merging, quiet."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import Digits, PreTokenizer, Sequence
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from harness.errors import UserError, foreign

MOST_PARTS = 2**22
"""No file of a usable model has more values in its header, the characters of a text counted as one value."""

DIGITS_APART = ("smollm",)
"""Kinds of byte-level BPE, as `tokenizer.ggml.pre` names them, that split texts at digits and then as GPT-2 does."""


def require_bounded(path: Path) -> None:
    """Check that a file in GGUF contains everything that its header names.

    transformers reads as many values as the header says, however many the file has.

    Args:
        path: the file. The package `gguf` is installed.

    Raises:
        UserError: it is damaged, or too large to be a model.
    """
    _kind_of_tokenizer(*_unchanged(path))


def config_of(path: Path) -> PreTrainedConfig:
    """Return the config of the model in a file in GGUF, as transformers reads it.

    Reading the header takes seconds, because it contains the vocabulary, and a run asks for the config several times.

    Args:
        path: the file, which `require_bounded` has checked.
    """
    return deepcopy(_config(*_unchanged(path)))


def _unchanged(path: Path) -> tuple[Path, int, int]:
    """Return what stays the same as long as a file does, so that it is read once."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _config(path: Path, size: int, changed_ns: int) -> PreTrainedConfig:
    """Read what `config_of` returns."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(path.parent, trust_remote_code=False, gguf_file=path.name)
    return config


@lru_cache(maxsize=4)
def _kind_of_tokenizer(path: Path, size: int, changed_ns: int) -> tuple[str, str]:
    """Do what `require_bounded` says, and return the kind of the tokenizer: its model and how it splits texts."""
    from gguf import GGUFReader

    class Bounded(GGUFReader):
        """Raises where a value is behind the end of the file; the base class then returns an empty array."""

        parts = 0

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            self.parts += 1
            found = super()._get(offset, dtype, count, override_order)
            if len(found) < count:
                raise ValueError("it ends before the values that its header names")
            if self.parts > MOST_PARTS:
                raise ValueError(f"it has more than {MOST_PARTS} values in its header")
            return found

    with foreign(f"{path}: is no complete file in GGUF", "give the model again, as it was published"):
        fields = Bounded(path).fields
        model, pre = (_text(fields.get(f"tokenizer.ggml.{name}")) for name in ("model", "pre"))
    return model, pre


def _text(field: Any) -> str:
    """Return the value of a field of the header that is a text; empty without the field."""
    return "" if field is None else bytes(field.parts[field.data[0]]).decode()


def dense_weights() -> Any:
    """Return the setting with which transformers makes dense weights of a file in GGUF; None for a version without it.

    Newer versions keep the weights of some architectures packed where the package `kernels` is installed, with kernels
    that they download. Results would then depend on what else is installed.
    """
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return None if config is None else config(dequantize=True)


@contextmanager
def bar_on_terminal_only() -> Iterator[None]:
    """Let transformers show the progress of a conversion on a terminal only. Its own switch leaves this bar on."""
    from transformers import modeling_gguf_pytorch_utils

    conversion: Any = modeling_gguf_pytorch_utils  # which exports no `tqdm`, by its types
    shown = conversion.tqdm
    conversion.tqdm = partial(shown, disable=None)
    try:
        yield
    finally:
        conversion.tqdm = shown


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Give a tokenizer the rule by which its file's kind splits texts. transformers splits as GPT-2 does.

    The rule matters for numerals outside of ASCII: without it, a space before one of them is merged with it.

    Args:
        tokenizer: as transformers read it; changed in place.
        path: the file in GGUF.

    Raises:
        UserError: the file's kind of tokenizer is not known here.
    """
    kind = _kind_of_tokenizer(*_unchanged(path))
    if kind[0] != "gpt2" or kind[1] not in DIGITS_APART:
        raise UserError(
            f"--llm {path}: the tokenizer {'-'.join(kind)!r} is not known here; give the model in safetensors"
        )
    backend = tokenizer.backend_tokenizer
    as_gpt2: PreTokenizer = backend.pre_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), as_gpt2])
