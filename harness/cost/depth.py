"""Time a backbone with fewer decoder layers, at its real width, and estimate the time of the whole backbone.

A machine that cannot hold a whole backbone can time a part of its layers. A second set of models, in which every
decoder layer runs twice, is timed in the same rounds. It uses the same weights and so takes no memory for them. The
difference of the two times is the time of the additional layers.

The result is only an estimate. Layers that fit into a processor cache may be faster than they would be in the whole
model. A method that chooses between ways to compute its result by the number of layers may choose another way there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.backbone.language_model import llm_config
from harness.config.presets import PRESETS, BackboneSpec
from harness.cost.stopwatch import Sample

_NOT_SIZES = ("model_type", "architectures", "transformers_version")
"""Fields of a model's config that describe the files it came from."""


@dataclass(frozen=True)
class Estimate:
    """The estimated times of a backbone that was timed in part.

    Attributes:
        layer_s: seconds of one more decoder layer.
        whole_s: seconds per batch of the whole model.
    """

    layer_s: float
    whole_s: float


def with_layers(spec: BackboneSpec, layers: int) -> BackboneSpec:
    """Return the backbone with another number of decoder layers.

    It gets a name of its own, because its times cannot be compared with those of the whole backbone. If the number is
    the backbone's own, the backbone itself is returned.
    """
    config = llm_config(spec)
    if layers == config.num_hidden_layers:
        return spec
    fields = {name: value for name, value in config.to_dict().items() if name not in _NOT_SIZES}
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
    """Return the number of decoder layers of the preset that `spec` is a part of; None if `spec` is whole."""
    return None if spec.part_of is None else llm_config(PRESETS[spec.part_of]).num_hidden_layers


def estimate(samples: Sequence[Sample], doubled: Sequence[Sample], layers: int, whole: int) -> Estimate:
    """Estimate the time of the whole model from steps at two depths.

    With t(K) and t(2K) from the same round, the time of one layer is the median of `(t(2K) - t(K)) / K`. The time of
    the whole model is `median t(K) + (N - K) · layer`.

    Args:
        samples: steps of the model with K decoder layers.
        doubled: steps of the model with 2K decoder layers, from the same rounds.
        layers: K.
        whole: N, the number of decoder layers of the whole model.
    """
    layer_s = median((twice.seconds - once.seconds) / layers for once, twice in zip(samples, doubled, strict=True))
    return Estimate(layer_s, median(sample.seconds for sample in samples) + (whole - layers) * layer_s)
