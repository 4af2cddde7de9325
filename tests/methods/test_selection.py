"""The last decoder layer computes the columns that are read, and the output is that of a model which computes all."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods import get_method, registry
from methods.base import Batch
from methods.decoder import AdaptedDecoderLayer
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tuned_model

VARIANTS = [
    pytest.param(name, overrides, id=f"{name}-{variant}" if variant else name)
    for name in registry()
    for variant, overrides in {"": {}, **getattr(get_method(name), "ablations", {})}.items()
]
each_variant = pytest.mark.parametrize(("name", "overrides"), VARIANTS)
IMAGES = (True, False, True, True)
GROUPED = {"num_kv_heads": 2}


def mixed_batch(model: TunedModel, padding: Any) -> Batch:
    """Return samples with and without images, with 6, 0, 3 and 1 labels at most; "both" pads on either side."""
    batch = random_batch(model.backbone, 4, 12, padding="left" if padding == "both" else padding, has_image=IMAGES)
    labels = batch.labels_BL.clone()
    labels[1] = -100
    labels[2, :-3] = -100
    labels[3, :-1] = -100
    labels[0, 8] = -100
    if padding == "both":
        # Columns of padding before the first two samples and behind the others.
        moved = {"input_ids_BL": 0, "attention_mask_BL": False}
        before = {key: F.pad(getattr(batch, key)[:2], (2, 0), value=value) for key, value in moved.items()}
        behind = {key: F.pad(getattr(batch, key)[2:], (0, 2), value=value) for key, value in moved.items()}
        tensors = {key: torch.cat([before[key], behind[key]]) for key in moved}
        labels = torch.cat([F.pad(labels[:2], (2, 0), value=-100), F.pad(labels[2:], (0, 2), value=-100)])
        batch = replace(batch, **tensors, labels_BL=labels)
    batch = replace(batch, labels_BL=labels)
    assert batch.facts.padding == (padding or "none")
    return batch


def loss_of_all_columns(model: TunedModel, batch: Batch) -> Tensor:
    """Return the loss computed from the hidden states of every column."""
    hidden_BTD, sequence = model.hidden_states(batch)
    logits_QV, targets = [], []
    for index in batch.facts.label_rows_Q.tolist():
        sample, token = divmod(index, batch.labels_BL.shape[1])
        if (column := int(sequence.columns_BL[sample, token])) >= 0:
            logits_QV.append(model.llm.lm_head(hidden_BTD[sample, column - 1]))
            targets.append(batch.labels_BL[sample, token])
    return F.cross_entropy(torch.stack(logits_QV), torch.stack(targets))


def gradients(model: TunedModel, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.method.parameters())))


def check(model: TunedModel, batch: Batch) -> None:
    """Check the loss and the gradients of a batch against those of all columns."""
    loss, expected = model(batch), loss_of_all_columns(model, batch)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected), atol=2e-6, rtol=1e-4)


def computed_columns(model: TunedModel) -> list[int]:
    """Return a list to which the last layer's FFN adds the number of its columns when it runs."""
    seen: list[int] = []
    model.llm.model.layers[-1].mlp.register_forward_hook(lambda *args: seen.append(args[2].shape[1]))
    return seen


@each_variant
@pytest.mark.parametrize("padding", [None, "left", "right", "both"])
def test_training_computes_the_labelled_columns_alone(name: str, overrides: dict[str, Any], padding: Any) -> None:
    model = tuned_model(name, tiny_backbone(**GROUPED), **overrides)
    batch = mixed_batch(model, padding)
    check(model, batch)
    seen = computed_columns(model)
    model(batch)
    assert seen == [5]


@each_variant
def test_prefill_computes_the_last_column_alone(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, tiny_backbone(**GROUPED), **overrides)
    for padding in (None, "left"):
        prompt = replace(mixed_batch(model, padding), labels_BL=None)
        with torch.no_grad():
            expected = model.logits(prompt)[:, -1]
            seen = computed_columns(model)
            torch.testing.assert_close(model.prefill(prompt)[0], expected, atol=1e-5, rtol=1e-4)
        assert seen == [1]


@pytest.mark.parametrize("name", registry())
@pytest.mark.parametrize("padding", ["left", "right"])
def test_it_is_the_same_under_checkpointing_and_with_eager_attention(name: str, padding: str) -> None:
    model = tuned_model(name, tiny_backbone(**GROUPED)).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = mixed_batch(model, padding)
    model.llm.gradient_checkpointing_enable({"use_reentrant": False})
    check(model, batch)
    model.llm.set_attn_implementation("eager")
    check(model, batch)


@pytest.mark.parametrize("name", registry())
def test_more_columns_than_labels_change_nothing(name: str) -> None:
    """Steps with different numbers of labels can have the same shapes."""
    model = tuned_model(name)
    batch = mixed_batch(model, "right")
    expected = model(batch)
    wider = replace(batch.facts, label_columns_BR=F.pad(batch.facts.label_columns_BR, (0, 3), value=-1))
    object.__setattr__(batch, "facts", wider)
    seen = computed_columns(model)
    loss = model(batch)
    assert seen == [8]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected), atol=1e-6, rtol=1e-5)


class MeanBeside(nn.Module):
    """Adds the mean of all columns, so that it must be given all of them."""

    def forward(self, u_BTD: Tensor, **layer_inputs: Any) -> Tensor:
        return u_BTD.mean(dim=1, keepdim=True)


class Doubled(nn.Module):
    """A layer that does not know how to select columns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.mlp = layer.mlp

    def forward(self, hidden_states: Tensor, **layer_inputs: Any) -> Tensor:
        return 2 * self.layer(hidden_states, **layer_inputs)


@pytest.mark.parametrize("wrap", [lambda layer: AdaptedDecoderLayer(layer, beside_ffn=MeanBeside()), Doubled])
def test_a_layer_that_declares_nothing_computes_every_column(wrap: Any) -> None:
    model = tuned_model("memvp")
    model.llm.model.layers[-1] = wrap(model.llm.model.layers[-1])
    batch = mixed_batch(model, "left")
    check(model, batch)
    seen = computed_columns(model)
    model(batch)
    model.prefill(replace(batch, labels_BL=None))
    assert seen == [12, 12]


@pytest.mark.parametrize("name", ["memvp", "llama_adapter"])
def test_padding_on_the_right_needs_no_mask(name: str) -> None:
    """Attention is causal, so that no real column sees the padding behind it."""
    model = tuned_model(name)
    batch = mixed_batch(model, "right")
    real_BL = batch.attention_mask_BL
    with torch.no_grad():
        _, sequence = model.hidden_states(batch)
        assert sequence.attention_mask is None
        other = replace(batch, input_ids_BL=torch.where(real_BL, batch.input_ids_BL, 7))
        assert torch.equal(model.logits(other)[real_BL], model.logits(batch)[real_BL])
        assert torch.equal(model(other), model(batch))
