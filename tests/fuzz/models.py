"""Backbones and adapters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

SOURCES: dict[str, Path] = {}
"""Where the valid folders are, by the name of the function that made them."""


def _spec(folder: Path) -> Any:
    from harness.config.presets import resolve_spec

    return resolve_spec("tiny", str(folder / "llm"), f"local-dir:{folder / 'clip'}")


def make_backbone(folder: Path) -> None:
    """Write a random language model and vision tower, and an untrained adapter of them."""
    from harness.backbone.loader import load_backbone
    from harness.files import write_atomic
    from methods import get_method
    from methods.checkpoint import save_adapter
    from tests.backbones import tiny_config
    from tests.folders import save_clip, save_llm

    save_llm(folder / "llm")
    save_clip(folder / "clip")
    spec = _spec(folder)
    backbone = load_backbone(spec)
    digest = backbone.fingerprint()
    method_class = get_method("dehvf")
    method = method_class(backbone, tiny_config(method_class, backbone))
    saved = {"model": "fuzzed", "llm": spec.llm, "clip": spec.clip, "weight_hash": digest, "dtype": "float32"}
    save_adapter(folder / "adapter", method, {"backbone": saved, "task": "scienceqa", "train": {}}, write_atomic)


def use_llm(folder: Path) -> None:
    """Load the backbone with the folder's language model."""
    from harness.backbone.loader import load_backbone

    load_backbone(replace(_spec(SOURCES["backbone"]), llm=str(folder / "llm")))


def use_clip(folder: Path) -> None:
    """Load the backbone with the folder's vision tower."""
    from harness.backbone.loader import load_backbone

    load_backbone(replace(_spec(SOURCES["backbone"]), clip=f"local-dir:{folder / 'clip'}"))


def use_adapter(folder: Path) -> None:
    """Answer a question with the adapter."""
    from harness.run.predict import load_adapter

    load_adapter(folder / "adapter").answer("which?")


def make_gguf(folder: Path) -> None:
    """Write a random language model as a file in GGUF, with a byte tokenizer, and a vision tower."""
    from tests.folders import save_clip, save_gguf

    save_gguf(folder / "llm.gguf")
    save_clip(folder / "clip")


def use_gguf(folder: Path) -> None:
    """Load the backbone with the file's language model."""
    from harness.backbone.loader import load_backbone
    from harness.config.presets import resolve_spec

    load_backbone(resolve_spec("tiny", str(folder / "llm.gguf"), f"local-dir:{folder / 'clip'}"))
