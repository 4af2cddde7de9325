"""The frozen backbone: language model, vision tower and tokenizer. This is the only place that loads one."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, logging

from harness.backbone.language_model import (
    llm_config,
    llm_size,
    load_tokenizer,
    pretrained_llm,
    random_llm,
)
from harness.backbone.quantised import require_quantisation
from harness.backbone.requirements import require_free_memory, require_stored
from harness.backbone.vision_tower import VisionTower, local_settings, pretrained_vision_tower, random_vision_tower
from harness.backbone.weights import is_gguf, llm_folder, require_weights, weight_files
from harness.config.presets import TINY, BackboneSpec
from harness.errors import UserError
from harness.streams import say_on_stderr

WeightsOrigin = Literal["pretrained", "shipped", "random"]
FULL_HASH_BYTES = 256 * 2**20
"""Up to this size, `Backbone.fingerprint` hashes every value."""
SAMPLES_PER_TENSOR = 4096
"""The least number of values that `Backbone.fingerprint` hashes per large tensor of a larger backbone."""

_LLM_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
)
_PROBE = "Question: Which is 12,345 km?\n  (A) Été\\n\t\u4e16\u754c </s> don't\nResponse: The answer is A."
"""A text with digits, spaces, line breaks, accents, other scripts and the name of a special token."""


@dataclass(frozen=True)
class Backbone:
    """A frozen language model and vision tower with their tokenizer; see `methods.base.Backbone`.

    Attributes:
        llm: the language model.
        vision: the vision tower.
        tokenizer: the language model's tokenizer. With random weights it is the shipped one.
        spec: what it was loaded from.
        weights: where the weights come from.
    """

    llm: LlamaForCausalLM
    vision: VisionTower
    tokenizer: PreTrainedTokenizerBase
    spec: BackboneSpec
    weights: WeightsOrigin

    @property
    def hidden_size(self) -> int:
        """Width of the language model's residual stream."""
        return self.llm.config.hidden_size

    @property
    def num_layers(self) -> int:
        """Number of decoder layers of the language model."""
        return self.llm.config.num_hidden_layers

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the frozen weights are stored and used."""
        return self.llm.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.llm.device

    def modules(self) -> Iterator[nn.Module]:
        """Yield the modules to freeze: the language model and the vision tower."""
        yield self.llm
        yield self.vision

    def settings_hash(self) -> str:
        """Return the SHA-256 of what the models compute with beside their weights.

        These are the settings of the language model's layers, its vocabulary and how it divides a text that shows its
        rules, and the settings of a vision tower in a folder. An open_clip model with a name has no other settings.
        """
        config = self.llm.config.to_dict()
        names = (*_LLM_SETTINGS, *(["max_position_embeddings"] if _rotates_by_context(config) else []))
        settings = {
            "llm": {name: config.get(name) for name in names},
            "vocabulary": self.tokenizer.get_vocab(),
            "tokens": self.tokenizer.encode(_PROBE),
            "clip": local_settings(self.spec),
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def fingerprint(self) -> str:
        """Return the SHA-256 of every tensor's name, shape, dtype and values.

        Call it before a method is attached, because attaching adds and renames tensors. Up to 256 MiB of weights, every
        value is hashed. Of a larger backbone, at least 4,096 evenly spaced values of each larger tensor are.
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
    """Load a frozen backbone in evaluation mode, or build one with random weights.

    Args:
        spec: which backbone, see `harness.config.presets.resolve_spec`.
        weights: "pretrained", or "random" to measure cost at the real size.
        device: where the weights go. Random weights are created there, without a copy on the CPU. On "meta" they have
            shapes only, and those that are not quantised.
        dtype: dtype of the frozen weights that are not quantised.
        seed: seed of the language model's random weights.

    Raises:
        UserError: weights are unavailable, the language model is not of the Llama architecture, the vision tower is not
            an open_clip vision transformer, there is too little memory, or bitsandbytes cannot quantise here.
    """
    logging.disable_progress_bar()
    device = torch.device(device)
    if device.type != "meta":
        require_quantisation(spec.quantize, device)
    if weights != "random":
        require_weights(spec, say_on_stderr)
    size = llm_size(spec, dtype)
    require_free_memory(size.bytes, dtype, device, f"--model {spec.base}")
    if weights != "random":
        require_stored(f"--llm {spec.llm}", size.parameters, weight_files(str(spec.llm)))
    if weights == "random":
        llm = random_llm(llm_config(spec), device, dtype, seed, spec.quantize)
        vision = random_vision_tower(spec, device, dtype)
        # It is not checked: what measures cost reads random tokens, whatever the size of the vocabulary.
        return _frozen(Backbone(llm, vision, load_tokenizer(TINY / "llm"), spec, "random"))
    llm = pretrained_llm(spec, device, dtype)
    vision = pretrained_vision_tower(spec, device, dtype)
    origin: WeightsOrigin = "shipped" if spec.shipped else "pretrained"
    return _frozen(Backbone(llm, vision, tokenizer_of(spec, weights), spec, origin))


def tokenizer_of(spec: BackboneSpec, weights: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer that a backbone reads text with; the shipped one stands in where the weights are random.

    Args:
        spec: which backbone.
        weights: "pretrained" or "random".

    Raises:
        UserError: there is no usable tokenizer, or it has ids that the language model does not have.
    """
    llm = None if weights == "random" else spec.llm
    source = None if llm is None or is_gguf(llm) else llm_folder(llm)
    tokenizer = load_tokenizer(source or llm or TINY / "llm")
    size = llm_config(spec).vocab_size
    if (largest := max(tokenizer.get_vocab().values())) < size:
        return tokenizer
    if llm is None:
        raise UserError(
            f"--weights random: texts are read with the shipped tokenizer, which has ids up to {largest}, but "
            f"{spec.llm or spec.name} has a vocab_size of {size}; give a model with a larger vocabulary"
        )
    raise UserError(
        f"--llm {llm}: its tokenizer has ids up to {largest}, but config.json has a vocab_size of {size}; "
        "give the tokenizer of this model"
    )


def _rotates_by_context(config: Mapping[str, Any]) -> bool:
    """Return whether the rotary embedding of a language model depends on the length of its context."""
    rope = config.get("rope_parameters") or {}
    by_ratio = rope.get("rope_type") in ("yarn", "longrope") and rope.get("factor") is None
    return by_ratio or rope.get("rope_type") == "dynamic"


def _frozen(backbone: Backbone) -> Backbone:
    """Put a backbone into evaluation mode and freeze all its parameters."""
    for module in backbone.modules():
        module.eval().requires_grad_(False)
    return backbone
