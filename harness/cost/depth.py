"""Part of a model's depth at its real width, for machines that cannot hold the whole; and what the whole would take.

The estimate times a second set of models with every decoder layer twice (the same weights: no memory for them), in the
same rounds: the difference is what so many more layers take. It is an estimate: layers that do not fit a cache once
are taken to fit it as little twice, and a method that chooses its form by depth to choose the same for the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.backbone.language_model import llm_config
from harness.config.presets import PRESETS, BackboneSpec
from harness.cost.stopwatch import Sample


@dataclass(frozen=True)
class Estimate:
    """Seconds of one more decoder layer, and of a batch of the whole model."""

    layer_s: float
    whole_s: float


def with_layers(spec: BackboneSpec, layers: int) -> BackboneSpec:
    """The backbone at another depth, under a name of its own: it is no more the model that the paper measured."""
    config = llm_config(spec)
    if layers == config.num_hidden_layers:
        return spec
    about_the_files = ("model_type", "architectures", "transformers_version")
    fields = {name: value for name, value in config.to_dict().items() if name not in about_the_files}
    return replace(
        spec,
        name=f"{spec.name}-{layers}-layers",
        llm_config={**fields, "num_hidden_layers": layers},
        display=f"{spec.display}, {layers} layers",
        shipped=False,
        part_of=spec.part_of or spec.name,
        like=spec.recipe,
    )


def whole_layers(spec: BackboneSpec) -> int | None:
    """Decoder layers of the preset that `spec` is a part of; None: it is whole."""
    return None if spec.part_of is None else llm_config(PRESETS[spec.part_of]).num_hidden_layers


def estimate(samples: Sequence[Sample], doubled: Sequence[Sample], layers: int, whole: int) -> Estimate:
    """From steps at a depth and at twice that depth, pair by pair.

    Formula: a layer is the median of `(t(2K) - t(K)) / K`, the whole `median t(K) + (N - K) · layer`.

    Args:
        samples: at `layers` decoder layers (K).
        doubled: of the same rounds, at twice as many.
        layers: K.
        whole: N.
    """
    layer = median((twice.seconds - once.seconds) / layers for once, twice in zip(samples, doubled, strict=True))
    return Estimate(layer, median(sample.seconds for sample in samples) + (whole - layers) * layer)
