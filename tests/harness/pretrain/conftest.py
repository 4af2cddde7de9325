"""Fixtures of the pretraining tests: the shipped tiny backbone."""

from pathlib import Path

import pytest
from open_clip.model import CLIP
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import harness
from harness.pretrain import check


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of the shipped tiny backbone."""
    return Path(harness.__file__).parent / "assets" / "tiny"


@pytest.fixture(scope="session")
def llm(tiny: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The shipped language model and its tokenizer."""
    return check.load_llm(tiny / "llm")


@pytest.fixture(scope="session")
def tokenizer(llm: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """The shipped tokenizer."""
    return llm[1]


@pytest.fixture(scope="session")
def clip(tiny: Path) -> CLIP:
    """The shipped CLIP."""
    return check.load_clip(tiny / "clip")
