"""The one backbone loader: a frozen Llama-family language model and a frozen open_clip vision tower.

Sole user of `open_clip` and of `from_pretrained`. Shape suffixes as in `methods.base`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, logging
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from harness.backbone.requirements import (
    check_clip_name,
    hub_reachable,
    missing_llm,
    require_free_memory,
    require_weights,
)
from harness.config.presets import PRESETS, TINY, BackboneSpec
from harness.errors import UserError

RANDOM_CLIP = "ViT-L-14-quickgelu:openai"
"""Whose sizes a random vision tower takes where the preset names none."""
WeightsOrigin = Literal["pretrained", "shipped", "random"]
FULL_HASH_BYTES = 256 * 2**20
SAMPLES_PER_TENSOR = 4096


class VisionTower(nn.Module):
    """An open_clip vision transformer, read block by block.

    Args:
        visual: `open_clip`'s `VisionTransformer`.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.width: int = visual.conv1.out_channels
        self.num_layers: int = len(visual.transformer.resblocks)
        self.num_patches: int = visual.grid_size[0] * visual.grid_size[1]
        self.image_size: int = visual.image_size[0]
        # Sequence first: with the batch first, each attention hands its linear layers a transposed view, which become
        # one small product for each column in place of a large one.
        for module in visual.transformer.modules():
            if hasattr(module, "batch_first"):
                module.batch_first = False

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.visual.transformer.resblocks

    def features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> list[Tensor]:
        """Hidden states after 1-based `blocks`, each `B×(J+1)×C`, CLS first; later blocks do not run.

        Args:
            images_BCHW: normalised images of `image_size`.
            blocks: which blocks, in ascending order.
            normalize: apply `ln_post`.
        """
        states = self._states(images_BCHW, blocks)
        return [self.visual.ln_post(state_BJC) for state_BJC in states] if normalize else states

    def stacked_features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> Tensor:
        """`features` of all the blocks in one tensor, `B×X×(J+1)×C`, and normalised at once."""
        states_BXJC = torch.stack(self._states(images_BCHW, blocks), dim=1)
        return self.visual.ln_post(states_BXJC) if normalize else states_BXJC

    def _states(self, images_BCHW: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        # The tower's own `forward_intermediates` cuts CLS off each state, which would have to be put together again.
        tokens = self.visual._embeds(images_BCHW.to(self.visual.conv1.weight.dtype))
        indices = [block - 1 for block in blocks]
        return self.visual.transformer.forward_intermediates(tokens, indices=indices, stop_early=True)[1]


@dataclass(frozen=True)
class Backbone:
    """A language model and a vision tower, frozen, with their tokenizer; see `methods.base.Backbone`.

    Attributes:
        llm: `LlamaForCausalLM`.
        vision: the vision tower.
        tokenizer: the language model's tokenizer; with random weights the shipped one stands in.
        spec: what it was loaded from.
        weights: "pretrained", "shipped" or "random".
    """

    llm: Any
    vision: Any
    tokenizer: Any
    spec: BackboneSpec
    weights: WeightsOrigin

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return self.llm.config.hidden_size

    @property
    def num_layers(self) -> int:
        """Decoder layers of the language model."""
        return self.llm.config.num_hidden_layers

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the frozen weights are held and computed in."""
        return self.llm.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.llm.device

    def modules(self) -> Iterator[nn.Module]:
        """The modules to freeze."""
        yield self.llm
        yield self.vision

    def fingerprint(self) -> str:
        """SHA-256 over every tensor's name, shape, dtype and values; take it before a method is attached.

        Up to 256 MiB every value counts; beyond that, 4,096 evenly spaced values of each tensor.
        """
        digest = hashlib.sha256()
        parts = {"llm": self.llm, "vision": self.vision}
        tensors = [(f"{part}.{name}", t) for part, m in parts.items() for name, t in m.state_dict().items()]
        everything = sum(t.numel() * t.element_size() for _, t in tensors) <= FULL_HASH_BYTES
        for name, tensor in tensors:
            flat = tensor.detach().flatten()
            if not everything and flat.numel() > SAMPLES_PER_TENSOR:
                flat = flat[:: flat.numel() // SAMPLES_PER_TENSOR]
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(flat.contiguous().cpu().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def load_backbone(
    spec: BackboneSpec,
    *,
    weights: str = "pretrained",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Backbone:
    """Load (or, with random weights, build) a frozen backbone in evaluation mode.

    Args:
        spec: which backbone, see `harness.config.presets.resolve_spec`.
        weights: "pretrained", or "random" for cost measurements at real size.
        device: where to; with random weights nothing is ever built elsewhere. "meta" builds shapes alone.
        dtype: of the frozen weights.
        seed: of random weights.

    Raises:
        UserError: weights not to be had, not a Llama, not an open_clip ViT, or too little memory.
    """
    logging.disable_progress_bar()
    device = torch.device(device)
    if weights == "random":
        config = llm_config(spec)
        require_free_memory(_count_parameters(config), dtype, device, spec)
        llm: Any = _random_llm(config, device, dtype, seed)
        vision = _random_vision(spec, device, dtype)
        return _frozen(llm, vision, _tokenizer(TINY / "llm"), spec, "random")
    require_weights(spec)
    assert spec.llm is not None, "required just now"
    config = llm_config(spec)
    require_free_memory(_count_parameters(config), dtype, device, spec)
    llm = _pretrained_llm(spec, device, dtype)
    vision = _pretrained_vision(spec, device, dtype)
    return _frozen(llm, vision, _tokenizer(spec.llm), spec, "shipped" if spec.shipped else "pretrained")


def llm_config(spec: BackboneSpec) -> LlamaConfig:
    """The language model's config.

    Raises:
        UserError: not a Llama-architecture model.
    """
    if spec.llm_config is not None:
        return LlamaConfig(**spec.llm_config)
    assert spec.llm is not None, "a spec names a model or gives its sizes"
    if missing_llm(spec) and not hub_reachable():
        raise UserError(f"{spec.llm}: is not on this machine, and the hub cannot be reached; give a model's folder")
    try:
        config = AutoConfig.from_pretrained(spec.llm)
    except (OSError, ValueError, StrictDataclassError) as error:
        # The first line of a StrictDataclassError names the check, the second what is wrong.
        reason = " ".join(str(error).split()) if isinstance(error, StrictDataclassError) else _first_line(error)
        raise UserError(f"{spec.llm}: no usable model config there ({reason}); give a folder or a hub id") from error
    if not isinstance(config, LlamaConfig):
        raise UserError(f"{spec.llm}: is a {config.model_type} model; give one of the Llama architecture")
    if fault := _fault(config):
        raise UserError(f"{spec.llm}: config.json: {fault}")
    published = PRESETS[spec.name].llm_config if spec.name in PRESETS else None
    for name, size in (published or {}).items():
        if getattr(config, name) != size:
            told = f"is called like the model of {spec.name}, but its {name} is {getattr(config, name)}, not {size}"
            raise UserError(f"{spec.llm}: {told}; rename the folder, or give a hub model in a folder of another name")
    return config


def _fault(config: LlamaConfig) -> str | None:
    """What no decoder can be built from, or would be built from wrongly."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes: dict[str, Any] = {name: getattr(config, name) for name in (*names, "num_key_value_heads", "head_dim")}
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            return f"{name} is {size!r}; it must be a whole number above 0"
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        return f"num_key_value_heads {sizes['num_key_value_heads']} does not divide num_attention_heads"
    if sizes["head_dim"] % 2:
        return f"head_dim {sizes['head_dim']} is odd; rotary embedding turns pairs"
    return None


def _count_parameters(config: LlamaConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in LlamaForCausalLM(config).parameters())


def _frozen(llm: Any, vision: Any, tokenizer: Any, spec: BackboneSpec, weights: WeightsOrigin) -> Backbone:
    backbone = Backbone(llm.eval(), vision.eval(), tokenizer, spec, weights)
    for module in backbone.modules():
        module.requires_grad_(False)
    return backbone


def _tokenizer(source: str | Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(f"--llm {source}: no tokenizer there ({_first_line(error)}); give a folder with one") from error
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(tokenizer, name) is None:
            raise UserError(f"--llm {source}: its tokenizer has no {name}; give a model whose tokenizer defines it")
    return tokenizer


def _pretrained_llm(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        loaded: Any = LlamaForCausalLM.from_pretrained(
            spec.llm,
            dtype=dtype,
            device_map={"": device},
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = _first_line(error)
        raise UserError(f"--llm {spec.llm}: cannot be loaded ({reason}); give a whole model in safetensors") from error
    llm, loading = loaded
    # Else transformers fills the gap with random numbers and goes on.
    if absent := sorted(loading["missing_keys"]):
        raise UserError(f"--llm {spec.llm}: its weights lack {absent[0]} ({len(absent)} in all); give a whole model")
    return llm


def _random_llm(config: LlamaConfig, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    with torch.device("meta"):
        llm = LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")
    if device.type == "meta":
        return llm
    llm = llm.to_empty(device=device)
    llm.tie_weights()
    # Rotary frequencies are computed, not stored: an empty buffer would stay empty.
    llm.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    _randomise(llm, seed)
    return llm


def _random_vision(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> VisionTower:
    import open_clip

    clip = spec.clip or RANDOM_CLIP
    config = spec.clip_config
    if config is None:
        check_clip_name(clip, weights=False)
        config = open_clip.get_model_config(clip if clip.startswith("local-dir:") else clip.partition(":")[0])
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    with torch.device("meta"):
        visual = open_clip.CLIP(**{key: config[key] for key in keys if key in config}).visual.to(dtype)
    if device.type != "meta":
        visual = visual.to_empty(device=device)
        _randomise(visual, seed=0)
    return VisionTower(_check_vit(visual, spec))


def _randomise(module: nn.Module, seed: int) -> None:
    """Matrices normal with standard deviation 0.02, norm weights one, biases zero, on the device itself."""
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2 or name.endswith("class_embedding"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def _pretrained_vision(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> VisionTower:
    import open_clip

    assert spec.clip is not None, "checked by load_backbone"
    name, _, tag = spec.clip.partition(":")
    given = {"model_name": spec.clip} if name == "local-dir" else {"model_name": name, "pretrained": tag}
    try:
        model = open_clip.create_model(**given, require_pretrained=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--clip {spec.clip}: cannot be loaded ({_first_line(error)})") from error
    return VisionTower(_check_vit(model.visual, spec)).to(device=device, dtype=dtype)


def _check_vit(visual: nn.Module, spec: BackboneSpec) -> nn.Module:
    import open_clip.transformer

    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise UserError(f"--clip {spec.clip}: is no open_clip vision transformer; give a ViT of open_clip's own kind")
    return visual


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
