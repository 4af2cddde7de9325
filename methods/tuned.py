"""A backbone with a method attached: the loss for training, prefill and steps for decoding.

Nothing here knows which method it runs. Shape suffixes as in `methods.base`; Q is the number of labelled tokens.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from methods.base import IGNORE_INDEX, Backbone, Batch, VisualFeatures, causal_mask, freeze
from methods.cache_keyword import CACHE_KEYWORD


@dataclass
class DecodingState:
    """What is kept between decoded tokens.

    Attributes:
        cache: the language model's key-value cache.
        visual: the method's features of the images.
        key_mask_BT: columns that the next token may attend to.
        next_position_B: rotary position of the next token.
        layer_inputs: the method's keyword arguments of every decoder layer, made at the first step.
    """

    cache: DynamicCache
    visual: VisualFeatures
    key_mask_BT: Tensor
    next_position_B: Tensor
    layer_inputs: dict[str, Any] | None = None

    def select(self, rows_N: Tensor) -> None:
        """Keep, repeat or reorder samples: row `i` becomes what row `rows_N[i]` was."""
        self.cache.batch_select_indices(rows_N)
        self.visual = {name: value[rows_N] for name, value in self.visual.items()}
        self.key_mask_BT = self.key_mask_BT[rows_N]
        self.next_position_B = self.next_position_B[rows_N]
        self.layer_inputs = None


@dataclass(frozen=True)
class Known:
    """What a training step else asks the device about its batch, which waits for it: `TunedModel.ask`, beforehand.

    A step that asks nothing can be captured as a CUDA graph.

    Attributes:
        all_have_images: every sample carries an image.
        attention_mask: `B×1×T×T`, true where row may attend to column.
        labelled_Q: rows of the hidden states, batch and columns flattened, that predict a label.
        targets_Q: the labels.
    """

    all_have_images: bool
    attention_mask: Tensor
    labelled_Q: Tensor
    targets_Q: Tensor


class TunedModel(nn.Module):
    """A frozen backbone with one method attached.

    Args:
        backbone: the backbone that `method` was built on.
        method: an `nn.Module` that satisfies `methods.base.Method`.
    """

    def __init__(self, backbone: Backbone, method: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.llm = backbone.llm
        self.vision = backbone.vision
        self.method = method
        freeze(backbone, method)

    def train(self, mode: bool = True) -> "TunedModel":
        """Training mode for all but the frozen vision tower, whose patch dropout would remove visual entries."""
        super().train(mode)
        self.vision.eval()
        self.method.train(mode)
        return self

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to the backbone's dtype where it is not float32; the method's parameters stay float32."""
        dtype = self.backbone.dtype
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.llm.device.type, dtype=dtype)

    def encode(self, images_BCHW: Tensor, has_image_B: Tensor, known: Known | None = None) -> VisualFeatures:
        """Visual features of a batch; only samples that carry an image are encoded, the rest are zero rows.

        Args:
            images_BCHW: normalised images, all zero where `has_image_B` is false.
            has_image_B: which samples carry an image.
            known: from `ask` on the same batch; None asks the device.

        Returns:
            The method's features, batch first, with `has_image_B` among them.
        """
        has_image_B = has_image_B.bool()
        everyone = bool(has_image_B.all()) if known is None else known.all_have_images
        with self.autocast():
            if everyone:
                features = self.method.encode_images(self.backbone, images_BCHW)
            else:
                rows = has_image_B.nonzero().squeeze(1)
                # The vision tower takes no empty batch: with no image at all, one blank image gives the shapes.
                encoded = self.method.encode_images(self.backbone, images_BCHW[rows] if len(rows) else images_BCHW[:1])
                features = {
                    name: value.new_zeros(len(has_image_B), *value.shape[1:]).index_copy(0, rows, value[: len(rows)])
                    for name, value in encoded.items()
                }
        return {**features, "has_image_B": has_image_B}

    def hidden_states(
        self, batch: Batch, visual: VisualFeatures | None = None, known: Known | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Final hidden states `B×T×D` of the whole sequence and the labels moved to their columns."""
        visual = self.encode(batch.images_BCHW, batch.has_image_B, known) if visual is None else visual
        with self.autocast():
            sequence = self.method.build_sequence(self.backbone, batch, visual)
            mask = sequence.attention_mask if known is None else known.attention_mask
            output = self.llm.model(
                inputs_embeds=sequence.inputs_embeds_BTD,
                attention_mask=llm_attention_mask(self.llm, mask),
                position_ids=sequence.position_ids_BT,
                use_cache=False,
                **self.method.layer_inputs(visual, sequence.inputs_embeds_BTD.shape[1]),
            )
        return output.last_hidden_state, sequence.labels_BT

    def forward(self, batch: Batch, visual: VisualFeatures | None = None, known: Known | None = None) -> Tensor:
        """Mean cross-entropy of the labelled tokens; logits are computed at labelled positions only.

        Args:
            batch: with labels.
            visual: features from `encode`, when they are already there.
            known: from `ask` on the same batch; None asks the device.

        Raises:
            ValueError: the batch has no label.
        """
        hidden_BTD, labels_BT = self.hidden_states(batch, visual, known)
        labelled_Q, targets_Q = _labelled(labels_BT) if known is None else (known.labelled_Q, known.targets_Q)
        with self.autocast():
            logits_QV = self.llm.lm_head(hidden_BTD.flatten(0, 1).index_select(0, labelled_Q))
        return F.cross_entropy(logits_QV.float(), targets_Q)

    @torch.no_grad()
    def ask(self, batch: Batch) -> Known:
        """What `forward` needs to know of `batch`, which holds as long as its masks and labels do.

        Raises:
            ValueError: the batch has no label.
        """
        visual = self.encode(batch.images_BCHW, batch.has_image_B)
        with self.autocast():
            sequence = self.method.build_sequence(self.backbone, batch, visual)
        mask = sequence.attention_mask
        mask = causal_mask(mask) if mask.ndim == 2 else mask
        return Known(bool(batch.has_image_B.all()), mask, *_labelled(sequence.labels_BT))

    def logits(self, batch: Batch, visual: VisualFeatures | None = None, known: Known | None = None) -> Tensor:
        """Logits `B×T×V` at every column of the sequence."""
        hidden_BTD, _ = self.hidden_states(batch, visual, known)
        with self.autocast():
            return self.llm.lm_head(hidden_BTD)

    def prefill(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, DecodingState]:
        """Run the prompt once and keep what decoding needs.

        Args:
            batch: prompts, **left-padded**, so that the last column is each sample's last token.
            visual: features from `encode`, when they are already there.

        Returns:
            Logits `B×V` of the next token, and the state for `step`.

        Raises:
            ValueError: a prompt is padded on the right.
        """
        if not bool(batch.attention_mask_BL[:, -1].all()):
            raise ValueError("prompts to decode from are padded on the right; pad them on the left")
        visual = self.encode(batch.images_BCHW, batch.has_image_B) if visual is None else visual
        cache = DynamicCache(config=self.llm.config)
        with self.autocast():
            sequence = self.method.build_sequence(self.backbone, batch, visual)
            layer_inputs = self.method.layer_inputs(visual, sequence.inputs_embeds_BTD.shape[1])
            output = self.llm.model(
                inputs_embeds=sequence.inputs_embeds_BTD,
                attention_mask=llm_attention_mask(self.llm, sequence.attention_mask),
                position_ids=sequence.position_ids_BT,
                use_cache=True,
                **{CACHE_KEYWORD: cache},
                **layer_inputs,
            )
            logits_BV = self.llm.lm_head(output.last_hidden_state[:, -1])
        if hasattr(self.method, "decoding_features"):
            visual = {**visual, **self.method.decoding_features(layer_inputs)}
        state = DecodingState(cache, visual, sequence.key_mask_BT, sequence.position_ids_BT[:, -1] + 1)
        return logits_BV, state

    def step(self, tokens_B: Tensor, state: DecodingState) -> Tensor:
        """Feed one token a sample; returns logits `B×V` of the next one and advances `state` in place."""
        state.key_mask_BT = F.pad(state.key_mask_BT, (0, 1), value=True)
        with self.autocast():
            if state.layer_inputs is None:
                state.layer_inputs = self.method.layer_inputs(state.visual, num_tokens=1)
            output = self.llm.model(
                inputs_embeds=self.llm.model.embed_tokens(tokens_B[:, None]),
                attention_mask=state.key_mask_BT,
                position_ids=state.next_position_B[:, None],
                use_cache=True,
                **{CACHE_KEYWORD: state.cache},
                **state.layer_inputs,
            )
            logits_BV = self.llm.lm_head(output.last_hidden_state[:, -1])
        state.next_position_B = state.next_position_B + 1
        return logits_BV


def _labelled(labels_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of the flattened hidden states that predict a label, and the labels."""
    if labels_BT is None:
        raise ValueError("a batch without labels has no loss: give labels_BL")
    targets_BT = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORE_INDEX)
    labelled_Q = (targets_BT.flatten() != IGNORE_INDEX).nonzero().squeeze(1)
    if not len(labelled_Q):
        raise ValueError("a batch without a labelled token has no loss: its answers may all have been cut off")
    return labelled_Q, targets_BT.flatten()[labelled_Q]


def llm_attention_mask(llm: Any, mask: Tensor) -> Tensor:
    """The mask in the form that the language model's attention takes.

    Args:
        llm: the language model.
        mask: `B×T`, or `B×1×T×T`, true where attention is allowed (`InputSequence.attention_mask`).

    Returns:
        `mask` itself, except that eager attention adds a four-dimensional mask to its scores: there 0 where allowed.

    Raises:
        ValueError: a four-dimensional mask for an attention implementation that takes none.
    """
    if mask.ndim == 2:
        return mask
    implementation = llm.config._attn_implementation
    if implementation == "sdpa":
        return mask
    if implementation != "eager":
        raise ValueError(f"{implementation} attention takes no such mask as this method's; load with sdpa or eager")
    return torch.zeros_like(mask, dtype=llm.dtype).masked_fill(~mask, torch.finfo(llm.dtype).min)
