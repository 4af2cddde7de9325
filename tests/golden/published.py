"""Reading a golden set, loading its weights into this project's modules, and comparing results with it.

A set holds the figures of a published model with random weights; `README.md` describes its files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.backbone.loader import Backbone, VisionTower
from methods.base import Batch, VisualFeatures
from methods.tuned import TunedModel
from tests.backbones import assemble
from tests.methods.probes import greedy_logits

LOGITS_TOLERANCE = 5e-5
LOSS_TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GoldenSet:
    """One golden set.

    Attributes:
        meta: the content of its JSON file.
        tensors: its tensors by name.
    """

    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, name: str) -> "GoldenSet":
        """Read the set `name` of `folder`."""
        return cls(json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors"))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with `prefix`, under the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


@dataclass
class Comparison:
    """The largest differences found so far, and everything else that does not match.

    Attributes:
        logits: largest absolute difference of a logit.
        loss: largest absolute difference of a loss.
        gradients: largest difference of a gradient entry, relative to the largest entry of its parameter's gradient.
        misses: everything else that differs, in words.
    """

    logits: float = 0.0
    loss: float = 0.0
    gradients: float = 0.0
    misses: list[str] = field(default_factory=list)

    def add_logits(self, ours: Tensor, theirs: Tensor) -> None:
        """Compare logits of equal shape."""
        self.logits = _worse(self.logits, (ours - theirs).abs().max().item())

    def add_loss(self, ours: Tensor, theirs: Tensor | float) -> None:
        """Compare losses."""
        self.loss = _worse(self.loss, (ours.detach() - theirs).abs().item())

    def add_gradients(self, ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor]) -> None:
        """Compare gradients by name. A name that only one side has is a miss, and so is a gradient that is None."""
        for name in sorted(ours.keys() ^ theirs.keys()):
            self.misses.append(f"gradient of {name} on one side only")
        for name in ours.keys() & theirs.keys():
            gradient, expected = ours[name], theirs[name]
            if gradient is None:
                self.misses.append(f"no gradient of {name}")
                continue
            difference = (gradient.reshape(expected.shape) - expected).abs().max() / expected.abs().max()
            self.gradients = _worse(self.gradients, difference.item())

    def add_tokens(self, ours: list[list[int]], theirs: list[list[int]]) -> None:
        """Compare decoded tokens."""
        if ours != theirs:
            self.misses.append("greedy tokens")

    @property
    def failures(self) -> list[str]:
        """What is out of tolerance; empty if the set matches. A NaN is out of tolerance."""
        limits = [
            ("logits", self.logits, LOGITS_TOLERANCE),
            ("loss", self.loss, LOSS_TOLERANCE),
            ("grads", self.gradients, GRADIENT_TOLERANCE),
        ]
        return [name for name, value, limit in limits if not value <= limit] + self.misses


def _worse(a: float, b: float) -> float:
    """Return the larger number, or NaN if either is NaN."""
    return b if b != b or b > a else a


def llama_from_published(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> LlamaForCausalLM:
    """Return a `LlamaForCausalLM` with the weights of Meta's model.

    Meta's rotary embedding rotates neighbouring pairs of a head; that of `transformers` rotates its two halves. The
    rows of the query and key projections are therefore permuted, as in the published conversion to that format.

    Args:
        weights: tensors by their names in Meta's format; other tensors may be among them.
        config: the sizes, by Meta's names.
    """
    width, layers, heads = config["dim"], config["n_layers"], config["n_heads"]
    renamed = {"model.embed_tokens.weight": weights["tok_embeddings.weight"]}
    renamed["model.norm.weight"] = weights["norm.weight"]
    renamed["lm_head.weight"] = weights["output.weight"]
    names = {
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    for layer in range(layers):
        theirs, ours = f"layers.{layer}", f"model.layers.{layer}"
        for old, new in names.items():
            renamed[f"{ours}.{new}.weight"] = weights[f"{theirs}.{old}.weight"]
        for old, new in {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj"}.items():
            renamed[f"{ours}.{new}.weight"] = _halves(weights[f"{theirs}.{old}.weight"], heads)
    llm = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            intermediate_size=weights["layers.0.feed_forward.w1.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=heads,
            vocab_size=config["vocab_size"],
            rms_norm_eps=config["norm_eps"],
            tie_word_embeddings=False,
        )
    )
    llm.load_state_dict(renamed)
    return llm.eval()


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of each head from interleaved pairs to two halves."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def clip_from_published(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> VisionTower:
    """Return a vision tower with the weights of OpenAI's CLIP, which uses QuickGELU.

    Args:
        weights: tensors by their names in CLIP; other tensors may be among them.
        config: the sizes.
    """
    vision = VisionTransformer(
        image_size=config["image"],
        patch_size=config["patch"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=4.0,
        output_dim=config["embed_dim"],
        act_layer=QuickGELU,
    )
    vision.load_state_dict({name: weights[name] for name in vision.state_dict()})
    return VisionTower(vision).eval()


def published_backbone(golden: GoldenSet, vision_prefix: str) -> Backbone:
    """Return the backbone of a set, whose CLIP weights have names that start with `vision_prefix`."""
    llm = llama_from_published(golden.under("w/"), golden.meta["config"]["llama"])
    vision = clip_from_published(golden.under(f"w/{vision_prefix}"), golden.meta["config"]["clip"])
    return assemble(llm, vision)


def load_renamed(method: nn.Module, golden: GoldenSet, names: Mapping[str, str]) -> None:
    """Load the published weights into a method.

    Args:
        method: the method.
        golden: the set.
        names: for each parameter of the method, its published name.
    """
    state = {ours: golden.tensors[f"w/{theirs}"] for ours, theirs in names.items()}
    own = dict(method.named_parameters())
    assert state.keys() == own.keys(), state.keys() ^ own.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name].reshape(parameter.shape))


def greedy(
    model: TunedModel, prompt: Batch, steps: int, visual: VisualFeatures | None = None
) -> tuple[list[list[int]], Tensor]:
    """Decode greedily without stopping at EOS.

    Args:
        model: the model.
        prompt: the prompts, padded on the left.
        steps: how many tokens to decode.
        visual: the visual features; None encodes the images of `prompt`.

    Returns:
        The tokens of each sample, and the logits that they were chosen by, `B×steps×V`.
    """
    logits = greedy_logits(model, prompt, steps, visual)
    return logits.argmax(dim=-1).tolist(), logits


def left_padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of prompts of unequal length, padded with 0 on the left."""
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[False] * (length - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return ids, mask


def cut_at(tokens: list[list[int]], eos: int) -> list[list[int]]:
    """Return the tokens of each sample before its first `eos`."""
    return [row[: row.index(eos)] if eos in row else row for row in tokens]
