"""Every parameter of every method in this repository: how it starts, and whether weight decay applies to it.

The table says what the papers and the published code do, and what the header of the method's file chooses where they
are silent. A parameter without an entry fails, and so does an entry without a parameter.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from harness.run.optimiser import parameter_groups
from methods import BUILT_IN, get_method
from tests.backbones import tiny_backbone, tiny_config, tuned_model

BUILDS = 24
"""Models that are built, so that also a router's two biases are many enough to measure a standard deviation."""
Start = Literal["zeros", "ones", "normal", "xavier", "default"]
"""`normal` is N(0, std²); `xavier` and `default` are uniform, with standard deviations `√(2 / (fan_in + fan_out))` and
`1 / √(3 · fan_in)`. The last is torch's own of a linear layer, for its weight and its bias."""


class Entry(NamedTuple):
    """How a parameter starts, whether it is decayed, and the standard deviation of a `normal` one."""

    start: Start
    decayed: bool
    std: float | str = 1.0
    """A number, or the field of the method's config that holds it."""


WEIGHT, BIAS = Entry("default", True), Entry("default", False)
ZERO_WEIGHT, ZERO_BIAS = Entry("zeros", True), Entry("zeros", False)
XAVIER, EMBEDDING = Entry("xavier", True), Entry("normal", True)
NORM = {"weight": Entry("ones", False), "bias": ZERO_BIAS}


def within(prefix: str, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return {f"{prefix}.{name}": entry for name, entry in entries.items()}


PROJECTOR = {"down.weight": XAVIER, "down.bias": ZERO_BIAS, "up.weight": XAVIER, "up.bias": ZERO_BIAS}
CLIP_ADAPTERS = within("vision_adapters.*", {"down.weight": WEIGHT, "up.weight": ZERO_WEIGHT})
MEMORY = {
    "memory.prompts.keys": Entry("normal", True, "prompt_std"),
    "memory.prompts.values": ZERO_WEIGHT,
    **within("memory.projector", PROJECTOR),
    **CLIP_ADAPTERS,
}
ROUTED_ADAPTER = {
    "down.weight": XAVIER,
    "down.bias": ZERO_BIAS,
    "up_EGOA": ZERO_WEIGHT,
    "up_bias_EC": ZERO_BIAS,
    "router.weight": WEIGHT,
    "router.bias": BIAS,
}
FUSER = {
    "projection.weight": WEIGHT,
    "projection.bias": BIAS,
    "blocks.*.attention.in_proj_weight": XAVIER,
    "blocks.*.attention.in_proj_bias": ZERO_BIAS,
    "blocks.*.attention.out_proj.weight": WEIGHT,
    "blocks.*.attention.out_proj.bias": ZERO_BIAS,
    **within("blocks.*.attention_norm", NORM),
    "blocks.*.ffn.*.weight": WEIGHT,
    "blocks.*.ffn.*.bias": BIAS,
    **within("blocks.*.ffn_norm", NORM),
}
TABLE: dict[str, dict[str, Entry]] = {
    "memvp": MEMORY,
    "dehvf": {
        **MEMORY,
        "queries.layer_embedding": EMBEDDING,
        "queries.position_embedding": EMBEDDING,
        "queries.mlp.*.weight": WEIGHT,
        "queries.mlp.*.bias": BIAS,
        "queries.queries": EMBEDDING,  # the ablation "learnable tokens"
        **within("fuser", FUSER),
    },
    "lavin": {
        "modality_ED": EMBEDDING,
        **within("projector", PROJECTOR),
        **within("vision_adapters.*", ROUTED_ADAPTER),
        **within("adapters.*", ROUTED_ADAPTER),
    },
    "llava_lora": {
        **within("projector", PROJECTOR),
        **CLIP_ADAPTERS,
        "lora.*.q_proj.down.weight": WEIGHT,
        "lora.*.q_proj.up.weight": ZERO_WEIGHT,
        "lora.*.v_proj.down.weight": WEIGHT,
        "lora.*.v_proj.up.weight": ZERO_WEIGHT,
    },
    "llama_adapter": {
        "prompts_YKD": Entry("normal", True, "prompt_std"),
        # The published gates have the shape 1 x heads x 1 x 1, and are no biases, so they are decayed.
        "gates_YN": ZERO_WEIGHT,
        **within("projector", PROJECTOR),
    },
}
VARIANTS = {name: {"": {}, **getattr(get_method(name), "ablations", {})} for name in TABLE}
each_method = pytest.mark.parametrize("name", TABLE)


def key(name: str) -> str:
    """Return a parameter's name with `*` for each index, as in the table."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def expected_std(entry: Entry, name: str, parameters: Mapping[str, Tensor], config: object) -> float:
    """Return the standard deviation that a random parameter starts with."""
    if entry.start == "normal":
        return getattr(config, entry.std) if isinstance(entry.std, str) else entry.std
    weight = parameters[re.sub("bias$", "weight", name)]
    fan_out, fan_in = weight.shape
    return math.sqrt(2 / (fan_in + fan_out)) if entry.start == "xavier" else 1 / math.sqrt(3 * fan_in)


@each_method
def test_every_parameter_has_an_entry_and_every_entry_a_parameter(name: str) -> None:
    models = [tuned_model(name, **overrides) for overrides in VARIANTS[name].values()]
    found = {key(parameter) for model in models for parameter, _ in model.method.named_parameters()}
    assert found == set(TABLE[name])


def fresh_methods(name: str) -> Iterator[Any]:
    """Yield the method as it starts, each time with other random numbers, and then its ablations."""
    method_class = get_method(name)
    overrides = [{}] * BUILDS + [fields for fields in VARIANTS[name].values() if fields] * 3
    for seed, fields in enumerate(overrides):
        backbone = tiny_backbone()
        torch.manual_seed(seed)
        yield method_class(backbone, tiny_config(method_class, backbone, **fields))


@each_method
def test_every_parameter_starts_as_published(name: str) -> None:
    drawn = defaultdict(list)
    for method in fresh_methods(name):
        parameters = dict(method.named_parameters())
        for parameter, value in parameters.items():
            entry = TABLE[name][key(parameter)]
            if entry.start in ("zeros", "ones"):
                assert torch.equal(value, torch.full_like(value, float(entry.start == "ones"))), parameter
            else:
                std = expected_std(entry, parameter, parameters, method.config)
                drawn[key(parameter)].append(value.detach().flatten().double() / std)
    for parameter, parts in drawn.items():
        values, normal = torch.cat(parts), TABLE[name][parameter].start == "normal"
        error = 5 / math.sqrt(len(values))  # five standard errors of the mean
        # Those of the standard deviation follow from the fourth moment, 3 for a normal and 1.8 for a uniform one.
        spread = error * math.sqrt((3 if normal else 1.8) - 1) / 2
        assert spread < 0.2, f"{parameter}: too few values to tell"
        assert values.square().mean().sqrt().item() == pytest.approx(1, abs=spread), parameter
        assert abs(values.mean().item()) < error, parameter
        assert (values.abs().max().item() > math.sqrt(3) + 1e-5) == normal, parameter


def test_the_table_has_every_method_of_this_repository() -> None:
    assert set(TABLE) == set(BUILT_IN)


@each_method
def test_weight_decay_leaves_out_biases_and_vectors(name: str) -> None:
    for overrides in VARIANTS[name].values():
        method: nn.Module = tuned_model(name, **overrides).method
        decay = {id(p): group["weight_decay"] for group in parameter_groups(method, 0.3) for p in group["params"]}
        for parameter, value in method.named_parameters():
            assert decay[id(value)] == (0.3 if TABLE[name][key(parameter)].decayed else 0), parameter
