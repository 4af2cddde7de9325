"""Which language model and which vision tower stand behind a `--model` name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
TINY = ASSETS / "tiny"
WEIGHTS = ("pretrained", "random")
PUBLISHED = "7b"
"""The preset whose recipe other language models take, where none of that size is named."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name.

    Attributes:
        name: what `--model` says; named after the parts once `--llm` or `--clip` puts others in their place.
        llm: hub id or folder of a Llama-architecture model; None where only random weights exist.
        clip: open_clip model `NAME[:WEIGHTS]`, or `local-dir:FOLDER`; None where only random weights exist.
        llm_config: `LlamaConfig` fields to build random weights from; None: read them from `llm`.
        clip_config: open_clip model config to build random weights from; None: the config that `clip` names.
        display: how tables name the language model.
        shipped: the weights are part of this package.
        part_of: the preset that this is some layers of; None: it is whole.
        like: the preset whose recipe and sizes it takes; None: its own.
    """

    name: str
    llm: str | None
    clip: str | None
    llm_config: Mapping[str, Any] | None
    clip_config: Mapping[str, Any] | None
    display: str
    shipped: bool = False
    part_of: str | None = None
    like: str | None = None

    @property
    def recipe(self) -> str:
        """The name that recipes know it by."""
        return self.like or self.name


def _llama(hidden: int, intermediate: int, layers: int, heads: int, **more: Any) -> Mapping[str, Any]:
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    common = {"vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
    return MappingProxyType({**common, **sizes, **more})


_CLIP_TINY = f"local-dir:{TINY / 'clip'}"
_CLIP_L = "ViT-L-14-quickgelu:openai"
_BENCH_CLIP = MappingProxyType(
    {
        "embed_dim": 256,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 112, "layers": 8, "width": 256, "head_width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
    }
)

PRESETS: Mapping[str, BackboneSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            BackboneSpec("tiny", str(TINY / "llm"), _CLIP_TINY, None, None, "tiny-Llama", shipped=True),
            BackboneSpec("7b", "huggyllama/llama-7b", _CLIP_L, _llama(4096, 11008, 32, 32), None, "LLaMA-7B"),
            BackboneSpec("13b", "huggyllama/llama-13b", _CLIP_L, _llama(5120, 13824, 40, 40), None, "LLaMA-13B"),
            BackboneSpec(
                "slice", None, None, _llama(4096, 11008, 4, 32), None, "slice of LLaMA-7B", part_of="7b", like="7b"
            ),
            BackboneSpec("bench", None, None, _llama(512, 1536, 8, 8), _BENCH_CLIP, "bench"),
        )
    }
)


def resolve_spec(model: str = "tiny", llm: str | None = None, clip: str | None = None) -> BackboneSpec:
    """The backbone that the options name.

    Args:
        model: a preset.
        llm: id or folder that replaces the preset's language model. One that is called like it is taken for a copy of
            it, and the preset keeps its name; other sizes are refused when it is loaded, and what it holds is in the
            record by its hash.
        clip: `NAME[:WEIGHTS]` that replaces the preset's vision tower.

    Raises:
        UserError: no such preset.
    """
    if model not in PRESETS:
        near = difflib.get_close_matches(model, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(PRESETS)}; any other model goes by --llm"
        raise UserError(f"--model {model}: no such preset; {hint}")
    spec = preset = PRESETS[model]
    real = preset.llm is not None and not preset.shipped
    parts = [preset.name]
    if llm is not None:
        copy = real and Path(llm).name == Path(str(preset.llm)).name
        parts = parts if copy else [Path(llm).name]
        display = preset.display if copy else Path(llm).name
        spec = replace(spec, llm=llm, llm_config=None, display=display, shipped=False)
    if clip is not None and clip != preset.clip:
        parts.append(Path(clip.removeprefix("local-dir:")).name)
        spec = replace(spec, clip=clip, clip_config=None, shipped=False)
    if parts == [preset.name]:
        return spec
    return replace(spec, name=_name(parts), like=preset.name if real else PUBLISHED)


def _name(parts: Sequence[str]) -> str:
    """One harmless path component that no preset is called by."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", "-".join(parts)).strip(".-") or "unnamed"
    return f"{name}-custom" if name in PRESETS else name
