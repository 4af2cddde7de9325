"""A backbone with a method attached: the loss for training, the prefill and the steps of decoding.

Nothing here knows which method it runs, and the forward pass in training never synchronises with the device. Shape
suffixes as in `methods.base`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from methods.base import IGNORE_INDEX, Backbone, Batch, InputSequence, VisualFeatures
from methods.cache_keyword import CACHE_KEYWORD
from methods.parameters import freeze
from methods.selection import Selection, last_column, predicting_columns, take
from methods.sequence import causal_mask


@dataclass
class DecodingState:
    """What is kept between decoded tokens.

    Attributes:
        cache: the language model's key-value cache.
        visual: the method's features of the images, and those that it keeps from the prompt.
        key_mask_BT: true for the columns that the next token may attend to; None if these are all columns.
        next_position_B: rotary position of the next token.
        layer_inputs: the method's keyword arguments for every decoder layer; None until the next step computes them.
    """

    cache: DynamicCache
    visual: VisualFeatures
    key_mask_BT: Tensor | None
    next_position_B: Tensor
    layer_inputs: dict[str, Any] | None = None

    def select(self, rows_N: Tensor) -> None:
        """Keep, repeat or reorder samples in place.

        Args:
            rows_N: sample `i` becomes what sample `rows_N[i]` was before.
        """
        self.cache.batch_select_indices(rows_N)
        self.visual = {name: value[rows_N] for name, value in self.visual.items()}
        self.key_mask_BT = None if self.key_mask_BT is None else self.key_mask_BT[rows_N]
        self.next_position_B = self.next_position_B[rows_N]
        self.layer_inputs = None


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
        """Set training mode, except for the frozen vision tower, whose patch dropout would remove patches."""
        super().train(mode)
        self.vision.eval()
        self.method.train(mode)
        return self

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context that autocasts to the backbone's dtype, or does nothing if that is float32.

        The method's parameters stay float32.
        """
        dtype = self.backbone.dtype
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.llm.device.type, dtype=dtype)

    def encode(self, batch: Batch) -> VisualFeatures:
        """Return the method's visual features of a batch, with the batch dimension first, and `has_image_B`.

        Only samples that carry an image are encoded. The features of the others are zero.
        """
        images_BCHW, rows_I = batch.images_BCHW, batch.facts.image_rows_I
        with self.autocast():
            if len(rows_I) == len(images_BCHW):
                features = self.method.encode_images(self.backbone, images_BCHW)
                if not batch.all_have_images:
                    features = {name: _only(batch.has_image_B, value) for name, value in features.items()}
            else:
                # The vision tower rejects an empty batch. If no sample has an image, one blank image gives the shapes.
                count = len(rows_I)
                encoded = self.method.encode_images(self.backbone, images_BCHW[rows_I] if count else images_BCHW[:1])
                features = {
                    name: value.new_zeros(len(images_BCHW), *value.shape[1:]).index_copy_(0, rows_I, value[:count])
                    for name, value in encoded.items()
                }
        return {**features, "has_image_B": batch.has_image_B.bool()}

    def hidden_states(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, InputSequence]:
        """Return the final hidden states of the whole sequence, `B×T×D`, and the sequence.

        Args:
            batch: a batch, padded on either side.
            visual: features from `encode`; None encodes the images here.
        """
        visual = self.encode(batch) if visual is None else visual
        with self.autocast():
            sequence, layer_inputs = self._inputs(batch, visual)
            return run_decoder(self.llm, *_columns(sequence), layer_inputs), sequence

    def _inputs(self, batch: Batch, visual: VisualFeatures) -> tuple[InputSequence, dict[str, Any]]:
        """Return the sequence that the language model reads, and the method's keyword arguments for its layers."""
        sequence = self.method.build_sequence(self.backbone, batch, visual)
        return sequence, self.method.layer_inputs(visual, sequence.inputs_embeds_BTD.shape[1])

    def forward(self, batch: Batch, visual: VisualFeatures | None = None) -> Tensor:
        """Return the mean cross-entropy over the labelled tokens; the arguments are those of `summed_loss`."""
        total, tokens = self.summed_loss(batch, visual)
        return total / tokens

    def summed_loss(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy over the labelled tokens, and their number, both as scalar tensors.

        The sums of several batches can be added up, so that the mean over all their tokens does not depend on how the
        samples were divided into batches. The output of the last decoder layer and the logits are computed for the
        labelled tokens only.

        Args:
            batch: a batch with labels.
            visual: features from `encode`; None encodes the images here.

        Raises:
            ValueError: the batch has no label.
        """
        if batch.labels_BL is None:
            raise ValueError("a batch without labels has no loss: give labels_BL")
        facts = batch.facts
        if not len(facts.label_rows_Q):
            raise ValueError(
                "a batch without a labelled token has no loss; if its answers were cut off, raise max_length"
            )
        visual = self.encode(batch) if visual is None else visual
        with self.autocast():
            sequence, layer_inputs = self._inputs(batch, visual)
            read = predicting_columns(sequence, facts.label_columns_BR)
            hidden_BRD = run_decoder(self.llm, *_columns(sequence), layer_inputs, read=read)
            # A sample may have fewer labelled tokens than R. Leave out the others, because the output layer is wide.
            samples_Q = facts.label_rows_Q // batch.labels_BL.shape[1]
            read_Q = samples_Q * hidden_BRD.shape[1] + facts.label_ranks_Q
            logits_QV = self.llm.lm_head(hidden_BRD.flatten(0, 1).index_select(0, read_Q))
        # A token that the method cut off has no column, and no column predicts it.
        cut_Q = sequence.columns_BL.flatten()[facts.label_rows_Q] < 0
        targets_Q = batch.labels_BL.flatten()[facts.label_rows_Q].masked_fill(cut_Q, IGNORE_INDEX)
        total = F.cross_entropy(logits_QV.float(), targets_Q, ignore_index=IGNORE_INDEX, reduction="sum")
        return total, (targets_Q != IGNORE_INDEX).sum()

    def logits(self, batch: Batch, visual: VisualFeatures | None = None) -> Tensor:
        """Return the logits at every column of the sequence, `B×T×V`; the arguments are those of `hidden_states`."""
        hidden_BTD, _ = self.hidden_states(batch, visual)
        with self.autocast():
            return self.llm.lm_head(hidden_BTD)

    def prefill(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, DecodingState]:
        """Run the prompts once and keep what decoding needs.

        Args:
            batch: prompts, padded on the **left**, so that the last column is the last token of every sample.
            visual: features from `encode`; None encodes the images here.

        Returns:
            Logits `B×V` of the next token, and the state for `step`.

        Raises:
            ValueError: a prompt is padded on the right.
        """
        if batch.facts.padding not in ("none", "left"):
            raise ValueError("prompts to decode from are padded on the right; pad them on the left")
        visual = self.encode(batch) if visual is None else visual
        cache = DynamicCache(config=self.llm.config)
        with self.autocast():
            sequence, layer_inputs = self._inputs(batch, visual)
            hidden_B1D = run_decoder(self.llm, *_columns(sequence), layer_inputs, cache, last_column(sequence))
            logits_BV = self.llm.lm_head(hidden_B1D[:, -1])
        if hasattr(self.method, "decoding_features"):
            visual = {**visual, **self.method.decoding_features(layer_inputs)}
        key_mask_BT = None if sequence.attention_mask is None else sequence.key_mask_BT
        return logits_BV, DecodingState(cache, visual, key_mask_BT, sequence.position_ids_BT[:, -1] + 1)

    def step(self, tokens_B: Tensor, state: DecodingState) -> Tensor:
        """Run one token per sample, return the logits of the next token, `B×V`, and advance `state` in place.

        Args:
            tokens_B: the token ids.
            state: the state that `prefill` returned.
        """
        mask = None
        if state.key_mask_BT is not None:
            state.key_mask_BT = F.pad(state.key_mask_BT, (0, 1), value=True)
            mask = state.key_mask_BT[:, None, None]
        with self.autocast():
            if state.layer_inputs is None:
                state.layer_inputs = self.method.layer_inputs(state.visual, num_tokens=1)
            embeds_B1D = self.llm.model.embed_tokens(tokens_B[:, None])
            positions_B1 = state.next_position_B[:, None]
            hidden_B1D = run_decoder(self.llm, embeds_B1D, mask, positions_B1, state.layer_inputs, state.cache)
            logits_BV = self.llm.lm_head(hidden_B1D[:, -1])
        state.next_position_B = state.next_position_B + 1
        return logits_BV


def _only(has_image_B: Tensor, features: Tensor) -> Tensor:
    """Return features of samples, with zeros for samples without an image."""
    return features.where(has_image_B.bool().view(-1, *[1] * (features.ndim - 1)), 0.0)


def _columns(sequence: InputSequence) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the arguments of `run_decoder` that a sequence gives."""
    return sequence.inputs_embeds_BTD, sequence.attention_mask, sequence.position_ids_BT


def run_decoder(
    llm: Any,
    embeds_BTD: Tensor,
    mask: Tensor | None,
    positions_BT: Tensor,
    layer_inputs: Mapping[str, Any],
    cache: DynamicCache | None = None,
    read: Selection | None = None,
) -> Tensor:
    """Return the final hidden states of the language model at the selected columns, `B×R×D`, or at all, `B×T×D`.

    This is the forward pass of `transformers`' `LlamaModel` without its preparation of masks. That preparation reads
    the values of masks and positions to find padding and packed sequences, and each read synchronises with the device.
    Here the padding is known, and sequences are never packed.

    Args:
        llm: the language model, with a method attached.
        embeds_BTD: input embeddings.
        mask: as in `InputSequence.attention_mask`, or `B×1×1×T` for one decoded token behind a cache.
        positions_BT: rotary positions.
        layer_inputs: the method's keyword arguments for every decoder layer.
        cache: keys and values of earlier columns, extended in place; None in training.
        read: the columns that are read; None if all are. The last layer computes no others, if its attribute
            `selects_columns` is true and the attention implementation takes a mask.
    """
    rotary = llm.model.rotary_emb(embeds_BTD, position_ids=positions_BT)
    inputs = {
        "attention_mask": attention_mask(llm, mask, embeds_BTD.shape[1]),
        "position_ids": positions_BT,
        "position_embeddings": rotary,
        "use_cache": cache is not None,
        CACHE_KEYWORD: cache,
        **layer_inputs,
    }
    *lower, last = llm.model.layers
    hidden_BTD = embeds_BTD
    for layer in lower:
        hidden_BTD = layer(hidden_BTD, **inputs)
    if read is None:
        hidden_BTD = last(hidden_BTD, **inputs)
    elif takes_masks(llm) and getattr(last, "selects_columns", False):
        mask = None if read.mask is None else _in_form(llm, read.mask)
        hidden_BTD = last(hidden_BTD, **{**inputs, "attention_mask": mask, "read_BR": read.columns_BR})
    else:
        hidden_BTD = take(last(hidden_BTD, **inputs), read.columns_BR)
    return llm.model.norm(hidden_BTD)


def attention_mask(llm: Any, mask: Tensor | None, columns: int) -> Tensor | None:
    """Return the mask in the form that the language model's attention implementation takes.

    Args:
        llm: the language model.
        mask: true where attention is allowed, as for `run_decoder`.
        columns: columns of the forward pass (T).

    Returns:
        For SDPA, a boolean mask `B×1×T×T`, or None if `mask` is None, because SDPA is then causal by itself. For eager
        attention, a mask `B×1×T×T` that is added to the scores: 0 where attention is allowed, the lowest number
        elsewhere. For other implementations, `mask` itself.

    Raises:
        ValueError: `mask` has four dimensions, but the implementation is neither SDPA nor eager.
    """
    implementation = llm.config._attn_implementation
    if not takes_masks(llm):
        if mask is None or mask.ndim == 2:
            return mask
        raise ValueError(f"{implementation} attention cannot use this method's mask; load the model with sdpa or eager")
    if mask is None and implementation == "eager" and columns > 1:
        mask = torch.ones(1, columns, dtype=torch.bool, device=llm.device)
    if mask is None:
        return None
    return _in_form(llm, causal_mask(mask) if mask.ndim == 2 else mask)


def takes_masks(llm: Any) -> bool:
    """Return whether the language model's attention implementation takes a mask `B×1×T×T`."""
    return llm.config._attn_implementation in ("sdpa", "eager")


def _in_form(llm: Any, mask: Tensor) -> Tensor:
    """Return a boolean mask in the form that SDPA or eager attention takes."""
    if llm.config._attn_implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=llm.dtype).masked_fill(~mask, torch.finfo(llm.dtype).min)
