"""What every registered method must satisfy, in each of its ablations. New methods are tested automatically.

Methods differ in how many columns they pass to the language model, so they are compared through the loss, the logits
after a prompt and the logits of decoded tokens, never column by column.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods import get_method, registry
from methods.base import IGNORE_INDEX, Batch, Method, MethodConfig
from methods.checkpoint import load_adapter_state, save_adapter
from methods.parameters import adapter_parameters
from methods.tuned import TunedModel
from tests.backbones import alone, random_batch, rows, tiny_backbone, tiny_config, tuned_model

NAMES = list(registry())
VARIANTS = [
    pytest.param(name, overrides, id=f"{name}-{variant}" if variant else name)
    for name in NAMES
    for variant, overrides in {"": {}, **getattr(get_method(name), "ablations", {})}.items()
]
each_method = pytest.mark.parametrize("name", NAMES)
each_variant = pytest.mark.parametrize(("name", "overrides"), VARIANTS)

MIXED = (True, False, True)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-4)


def cut(batch: Batch, columns: int) -> Batch:
    """Return the prompt made of the first columns of a batch."""
    return replace(
        batch,
        input_ids_BL=batch.input_ids_BL[:, :columns],
        attention_mask_BL=batch.attention_mask_BL[:, :columns],
        labels_BL=None,
    )


def after_prompt(model: TunedModel, batch: Batch, visual: Any = None) -> Tensor:
    """Return the logits `B×V` of the token after each prompt."""
    with torch.no_grad():
        return model.prefill(replace(batch, labels_BL=None), visual)[0]


def dead(model: TunedModel) -> list[str]:
    """Return the names of adapter parameters whose gradient is missing, zero or not finite."""
    bad = []
    for name, parameter in model.method.named_parameters():
        gradient = parameter.grad
        if gradient is None or not gradient.isfinite().all() or gradient.abs().max() == 0:
            bad.append(name)
    return bad


@each_method
def test_method_says_what_it_is(name: str) -> None:
    method = get_method(name)
    assert method.name == name and method.title
    assert method.__doc__ and "Args:" in method.__doc__
    assert method.source.paper and method.source.summary and method.source.url.startswith("https://")
    assert issubclass(method.Config, MethodConfig) and method.Config.__doc__
    undescribed = [field for field, info in method.Config.model_fields.items() if not info.description]
    assert not undescribed
    method.Config()  # every field has a default, the value of the published run
    with pytest.raises(ValueError):
        method.Config(no_such_option=1)
    assert not [
        part for part in ("encode_images", "build_sequence", "layer_inputs") if not getattr(method, part).__doc__
    ]
    public = {part for part in vars(Method) if not part.startswith("_")} - {"config"}
    assert not [part for part in public if not hasattr(method, part)]


@each_variant
def test_exactly_the_methods_own_parameters_are_trainable(name: str, overrides: dict[str, Any]) -> None:
    backbone = tiny_backbone()
    frozen = {id(p) for part in backbone.modules() for p in part.parameters()}
    model = tuned_model(name, backbone, **overrides)
    own = adapter_parameters(model.method)
    assert own and not {id(p) for p in own.values()} & frozen
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in own.values()}
    assert all(p.dtype == torch.float32 for p in own.values())
    counts = model.method.reference_only()
    assert all(isinstance(count, int) and count > 0 for count in counts.values())


@pytest.mark.parametrize(
    ("name", "sizes", "overrides"),
    [
        ("dehvf", {"vision_layers": 6}, {}),
        ("dehvf", {"num_layers": 3}, {}),
        ("dehvf", {}, {"memory_length": 15}),
        ("memvp", {}, {"memory_length": 15}),
        ("lavin", {}, {"feature_stride": 9}),
        ("lavin", {"hidden_size": 64, "vision_width": 60}, {"adapter_dim": 24, "adapter_groups": 12}),
        ("llava_lora", {}, {"lora_targets": ("qq_proj",)}),
        ("llama_adapter", {}, {"num_adapter_layers": 5}),
    ],
)
def test_a_refused_config_leaves_the_backbone_as_it_was(
    name: str, sizes: dict[str, int], overrides: dict[str, Any]
) -> None:
    backbone, method = tiny_backbone(**sizes), get_method(name)
    before = [type(module) for part in backbone.modules() for module in part.modules()]
    with pytest.raises(ValueError):
        method(backbone, tiny_config(method, backbone, **overrides))
    assert [type(module) for part in backbone.modules() for module in part.modules()] == before


@each_variant
def test_training_changes_the_method_and_never_the_backbone(name: str, overrides: dict[str, Any]) -> None:
    backbone = tiny_backbone()
    parts = [(p, p.clone()) for part in backbone.modules() for p in [*part.parameters(), *part.buffers()]]
    model = tuned_model(name, backbone, **overrides).train()
    before = {key: p.clone() for key, p in model.method.named_parameters()}
    optimizer = torch.optim.SGD(model.method.parameters(), lr=1.0)
    model(random_batch(backbone, 3, 12, padding="right", has_image=MIXED)).backward()
    assert all(p.grad is None for p, _ in parts)
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in parts)
    assert not [key for key, p in model.method.named_parameters() if torch.equal(p, before[key])]


@each_variant
def test_frozen_parts_of_a_decoder_layer_are_called_only_while_it_runs(name: str, overrides: dict[str, Any]) -> None:
    """Where processes divide the layers, the weights of a layer are there only while it runs."""
    model = tuned_model(name, **overrides)
    running: set[int] = set()
    outside: list[str] = []
    for index, layer in enumerate(model.llm.model.layers):
        for part, module in layer.named_modules():
            if any(not parameter.requires_grad for parameter in module.parameters(recurse=False)):
                called = f"{index}.{part}"
                module.register_forward_pre_hook(
                    lambda *_, index=index, called=called: None if index in running else outside.append(called)
                )
        layer.register_forward_pre_hook(lambda *_, index=index: running.add(index))
        layer.register_forward_hook(lambda *_, index=index: running.remove(index))
    batch = random_batch(model.backbone, 3, 12, padding="left", has_image=MIXED)
    model(batch)
    with torch.no_grad():
        logits, state = model.prefill(replace(batch, labels_BL=None))
        model.step(logits.argmax(-1), state)
    assert not outside


@each_variant
def test_every_parameter_gets_a_gradient_also_after_decoding(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 3, 12, padding="left", has_image=MIXED)
    for training in (True, False, True):
        model.train(training)
        model.zero_grad()
        model(batch).backward()
        assert not dead(model)
        with torch.no_grad():
            logits, state = model.eval().prefill(replace(batch, labels_BL=None))
            model.step(logits.argmax(-1), state)


@each_variant
def test_no_parameter_is_stuck_at_its_initial_value(name: str, overrides: dict[str, Any]) -> None:
    """Where zero initialisation blocks a gradient at first, the parameter must get one within a few steps."""
    model = tuned_model(name, random=False, **overrides)
    optimizer = torch.optim.AdamW(model.method.parameters(), lr=1e-2)
    for step in range(4):
        optimizer.zero_grad()
        model(random_batch(model.backbone, 3, 12, seed=step, has_image=MIXED)).backward()
        optimizer.step()
    assert not dead(model)


@each_variant
def test_without_an_image_the_images_are_never_seen(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 2, 10, padding="left", has_image=[True, True])
    blank = replace(batch, has_image_B=torch.zeros(2, dtype=torch.bool))
    other = replace(blank, images_BCHW=3 * batch.images_BCHW.flip(0) + 1)
    expected = after_prompt(model, blank)
    assert torch.equal(after_prompt(model, other), expected)
    with torch.no_grad():
        assert torch.equal(model(blank), model(other))
        # Features of an image are passed in, but the has-image flag alone must keep them out.
        for images in (batch.images_BCHW, other.images_BCHW):
            seen = {**model.method.encode_images(model.backbone, images), "has_image_B": blank.has_image_B}
            close(after_prompt(model, blank, seen), expected)


@each_method
def test_with_an_image_the_image_matters(name: str) -> None:
    model = tuned_model(name)
    batch = random_batch(model.backbone, 2, 10, has_image=[True, True])
    other = replace(batch, images_BCHW=batch.images_BCHW.flip(0))
    assert (after_prompt(model, batch) - after_prompt(model, other)).abs().max() > 1e-3


@each_variant
def test_permuting_the_batch_permutes_the_output(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 4, 11, padding="left", has_image=(True, False, True, False))
    order = [2, 0, 3, 1]
    close(after_prompt(model, rows(batch, order)), after_prompt(model, batch)[order])
    with torch.no_grad():
        close(model(rows(batch, order)), model(batch))


@each_variant
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_sample_is_the_same_alone_and_in_any_batch(name: str, overrides: dict[str, Any], padding: Any) -> None:
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 3, 13, seed=5, padding=padding, has_image=(True, False, True))
    assert not batch.attention_mask_BL.all()
    for row in range(3):
        labels = torch.full_like(batch.labels_BL, IGNORE_INDEX)
        labels[row] = batch.labels_BL[row]
        with torch.no_grad():
            close(model(replace(batch, labels_BL=labels)), model(alone(batch, row)))
        if padding == "left":
            close(after_prompt(model, batch)[row], after_prompt(model, alone(batch, row))[0])


@each_variant
def test_decoding_step_by_step_equals_the_full_forward(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 4, 14, seed=2, padding="left", has_image=(True, False, True, False))
    with torch.no_grad():
        logits, state = model.prefill(cut(batch, 10))
        close(logits, after_prompt(model, cut(batch, 10)))
        for column in range(10, 14):
            logits = model.step(batch.input_ids_BL[:, column], state)
            close(logits, after_prompt(model, cut(batch, column + 1)))


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Sizes of a model and a batch at which every method can be built with its default groups and strides."""
    return {
        "batch": (batch := draw(st.integers(2, 4))),
        "length": draw(st.integers(8, 14)),
        "has_image": [True, *draw(st.lists(st.booleans(), min_size=batch - 1, max_size=batch - 1))],
        "order": draw(st.permutations(range(batch))),
        "backbone": {
            "num_layers": draw(st.sampled_from([4, 8])),
            "hidden_size": draw(st.sampled_from([32, 48, 64])),
            "num_kv_heads": draw(st.sampled_from([2, 4])),
            "vision_layers": draw(st.sampled_from([4, 8])),
            "vision_width": draw(st.sampled_from([24, 48])),
            "image_size": draw(st.sampled_from([16, 24, 32])),
        },
    }


@each_method
@settings(max_examples=4)
@given(case=cases())
def test_at_any_size_order_images_decoding_and_gradients_hold(name: str, case: dict[str, Any]) -> None:
    model = tuned_model(name, tiny_backbone(**case["backbone"]))
    length, order, flags = case["length"], list(case["order"]), torch.tensor(case["has_image"])
    batch = random_batch(model.backbone, case["batch"], length, padding="left", has_image=case["has_image"])
    expected = after_prompt(model, batch)
    close(after_prompt(model, rows(batch, order)), expected[order])
    other = replace(batch, images_BCHW=torch.where(flags[:, None, None, None], batch.images_BCHW, 5.0))
    close(after_prompt(model, other), expected)
    with torch.no_grad():
        _, state = model.prefill(cut(batch, length - 2))
        for column in (length - 2, length - 1):
            logits = model.step(batch.input_ids_BL[:, column], state)
        close(logits, expected)
    for training in (True, False, True):
        model.train(training)
        model.zero_grad()
        model(batch).backward()
        assert not dead(model)


@each_variant
def test_the_loss_is_that_of_the_decoded_logits(name: str, overrides: dict[str, Any]) -> None:
    """The training loss is the mean cross-entropy of the labelled tokens, each predicted from all tokens before it."""
    model = tuned_model(name, **overrides)
    batch = random_batch(model.backbone, 2, 9, has_image=(True, False))
    first = int((batch.labels_BL[0] != IGNORE_INDEX).int().argmax())
    losses = []
    for column in range(first, 9):
        logits = after_prompt(model, cut(batch, column))
        losses.append(torch.nn.functional.cross_entropy(logits, batch.input_ids_BL[:, column]))
    with torch.no_grad():
        close(model(batch), torch.stack(losses).mean())


@each_variant
def test_a_batch_without_any_image_runs(name: str, overrides: dict[str, Any]) -> None:
    model = tuned_model(name, **overrides).train()
    loss = model(random_batch(model.backbone, 2, 9, has_image=(False, False)))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.method.parameters())


@each_variant
def test_saved_and_loaded_it_gives_the_same_logits(name: str, overrides: dict[str, Any], tmp_path: Any) -> None:
    model = tuned_model(name, **overrides)
    save_adapter(tmp_path, model.method, {}, lambda path, data: path.write_bytes(data))
    other = tuned_model(name, seed=9, **overrides)
    batch = random_batch(model.backbone, 3, 10, padding="left", has_image=MIXED)
    expected = after_prompt(model, batch)
    assert not torch.equal(after_prompt(other, batch), expected)
    load_adapter_state(tmp_path, other.method)
    assert torch.equal(after_prompt(other, batch), expected)


@each_variant
@pytest.mark.parametrize("sizes", [{"num_kv_heads": 2}, {"num_kv_heads": 1, "tie": True}, {"num_layers": 8}])
def test_other_llamas_work(name: str, overrides: dict[str, Any], sizes: dict[str, Any]) -> None:
    model = tuned_model(name, tiny_backbone(**sizes), **overrides)
    batch = random_batch(model.backbone, 3, 10, padding="left", has_image=MIXED)
    model(batch).backward()
    assert not dead(model)
    with torch.no_grad():
        _, state = model.prefill(cut(batch, 9))
        close(model.step(batch.input_ids_BL[:, 9], state), after_prompt(model, batch))


@pytest.mark.parametrize(("name", "overrides"), [variant for variant in VARIANTS if variant.values[1]])
def test_ablations_in_half_precision_under_checkpointing(name: str, overrides: dict[str, Any]) -> None:
    """The same checks as those of `tests/methods/test_execution.py`, which tests the methods without ablations."""
    model = tuned_model(name, tiny_backbone(num_kv_heads=2, tie=True, dtype=torch.bfloat16), **overrides).train()
    batch = random_batch(model.backbone, 3, 10, padding="left", has_image=MIXED)
    assert model.hidden_states(batch)[0].dtype == torch.bfloat16
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.llm.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(0)
        model(batch).backward()
        assert not dead(model)
        gradients.append([p.grad.clone() for p in model.method.parameters()])
    assert all(gradient.dtype == torch.float32 for gradient in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0])


@each_method
def test_building_it_twice_from_one_seed_gives_the_same_weights(name: str) -> None:
    first, second = (tuned_model(name, random=False).method.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@each_method
def test_a_batch_without_labels_has_no_loss(name: str) -> None:
    model = tuned_model(name)
    batch = random_batch(model.backbone, 2, 8)
    for labels in (None, torch.full_like(batch.input_ids_BL, IGNORE_INDEX)):
        with pytest.raises(ValueError, match="has no loss"):
            model(replace(batch, labels_BL=labels))


@each_method
def test_prompts_padded_on_the_right_are_refused(name: str) -> None:
    model = tuned_model(name)
    with pytest.raises(ValueError, match="pad them on the left"):
        model.prefill(random_batch(model.backbone, 3, 12, seed=5, padding="right"))


@each_method
def test_the_frozen_vision_tower_stays_in_evaluation_mode(name: str) -> None:
    """A tower with patch dropout must not lose patches while a method is trained."""
    model = tuned_model(name).train()
    own = {id(module) for module in model.method.modules()}
    assert not [module for module in model.vision.modules() if module.training and id(module) not in own]
    assert all(module.training for module in model.method.modules())


@each_method
def test_its_config_suits_the_tiny_backbone(name: str) -> None:
    """The values in `tests.backbones.SMALL` are valid for every method's config."""
    backbone = tiny_backbone()
    config = tiny_config(get_method(name), backbone)
    assert type(config) is get_method(name).Config
    if "memory_length" in type(config).model_fields:
        assert config.memory_length == backbone.vision.num_patches + 4
