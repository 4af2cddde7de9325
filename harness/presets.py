"""Which language model and which vision tower stand behind a `--model` name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import UserError

ASSETS = Path(__file__).parent / "assets"
TINY = ASSETS / "tiny"
WEIGHTS = ("pretrained", "random")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name.

    Attributes:
        name: what `--model` says, `custom` once `--llm` or `--clip` replaces a part.
        llm: hub id or folder of a Llama-architecture model; None where only random weights exist.
        clip: open_clip model `NAME[:WEIGHTS]`, or `local-dir:FOLDER`; None where only random weights exist.
        llm_config: `LlamaConfig` fields to build random weights from; None: read them from `llm`.
        clip_config: open_clip model config to build random weights from; None: the config that `clip` names.
        display: how tables name the language model.
        shipped: the weights are part of this package.
        part_of: the preset that this is some layers of; None: it is whole.
    """

    name: str
    llm: str | None
    clip: str | None
    llm_config: Mapping[str, Any] | None
    clip_config: Mapping[str, Any] | None
    display: str
    shipped: bool = False
    part_of: str | None = None


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
            BackboneSpec("slice", None, None, _llama(4096, 11008, 4, 32), None, "slice of LLaMA-7B", part_of="7b"),
            BackboneSpec("bench", None, None, _llama(512, 1536, 8, 8), _BENCH_CLIP, "bench"),
        )
    }
)


def resolve_spec(model: str = "tiny", llm: str | None = None, clip: str | None = None) -> BackboneSpec:
    """The backbone that the options name.

    Args:
        model: a preset.
        llm: id or folder that replaces the preset's language model.
        clip: `NAME[:WEIGHTS]` that replaces the preset's vision tower.

    Raises:
        UserError: no such preset.
    """
    if model not in PRESETS:
        near = difflib.get_close_matches(model, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(PRESETS)}; any other model goes by --llm"
        raise UserError(f"--model {model}: no such preset; {hint}")
    spec = PRESETS[model]
    if llm is not None:
        spec = replace(spec, name="custom", llm=llm, llm_config=None, display=Path(llm).name, shipped=False)
    if clip is not None:
        spec = replace(spec, name="custom", clip=clip, clip_config=None, shipped=False)
    return spec
