"""How much memory a run takes at its peak, estimated from sizes, and which settings make it fit a device."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from harness.backbone.language_model import llm_config, llm_size
from harness.config.presets import QUANTIZE, BackboneSpec, Quantize
from harness.config.recipe import CaptionRecipe, TrainRecipe
from harness.records import Parameters
from harness.run.execution import MicroBatch

ADAM_BYTES = 16
"""Bytes per trained parameter: the float32 value, its gradient and Adam's two moments."""
ACTIVATIONS_PER_LAYER = 34
"""Values kept for the backward pass per decoder layer, token and unit of hidden_size.

Korthikanti et al. 2022 count 17, which are 34 bytes in 16 bits, besides the scores of attention. Twice as many leave
room for these, for what a method adds, and for the CUDA graphs of other lengths, which keep their memory.
"""
COLLECTED_LAYERS = 2
"""Layers that are whole at a time where they are divided: the one that computes, and the next."""
TYPICAL_TOKENS = 128
"""Text tokens per sample that the estimate assumes."""


@dataclass(frozen=True)
class Footprint:
    """The peak memory of a run.

    Attributes:
        bytes: a rough estimate.
        micro_batch: samples per forward pass in training that it holds for.
    """

    bytes: float
    micro_batch: int


class Sizes:
    """The sizes of a backbone with a method attached, from which footprints follow.

    Args:
        spec: the backbone; only its sizes are used.
        dtype: dtype of the frozen weights that are not quantised.
        counts: its parameters with the method attached.
        shards: processes among which the frozen decoder layers are divided; the sizes are those of one of them.
        processes: those that share the samples of every optimiser step.
    """

    def __init__(
        self, spec: BackboneSpec, dtype: torch.dtype, counts: Parameters, shards: int = 1, processes: int = 1
    ) -> None:
        self.spec, self.dtype, self.counts, self.shards, self.processes = spec, dtype, counts, shards, processes
        self._config = llm_config(spec)
        llm = llm_size(spec, dtype)
        others = counts.total - counts.trainable - llm.parameters
        layers = self._config.num_hidden_layers
        # No sum of parts and collected layers is larger than all layers.
        away = 0.0 if shards == 1 else llm.layer_bytes * max(0.0, layers * (1 - 1 / shards) - COLLECTED_LAYERS)
        self._weights = llm.bytes - away + others * dtype.itemsize + counts.trainable * ADAM_BYTES

    def quantised(self, quantize: Quantize | None) -> "Sizes":
        """Return the sizes of the same model, quantised in this way."""
        return Sizes(replace(self.spec, quantize=quantize), self.dtype, self.counts, self.shards, self.processes)

    def bytes(self, recipe: TrainRecipe, micro_batch: int) -> float:
        """Return the rough peak memory of a run.

        It holds the weights, what the optimiser keeps, and the larger of two: what a training step keeps for the
        backward pass, and the keys and values of an evaluation batch with the activations of one layer. With gradient
        checkpointing, a step keeps the input of every layer and the activations of one.

        Args:
            recipe: settings of the run.
            micro_batch: samples per forward pass in training.
        """
        config = self._config
        layers, width = config.num_hidden_layers, config.hidden_size
        kept = layers + ACTIVATIONS_PER_LAYER if recipe.gradient_checkpointing else layers * ACTIVATIONS_PER_LAYER
        assert config.num_key_value_heads and config.head_dim, "a Llama config fills in both"
        cached = 2 * layers * config.num_key_value_heads * config.head_dim + ACTIVATIONS_PER_LAYER * width
        beams = recipe.beams if isinstance(recipe, CaptionRecipe) else 1
        values = max(micro_batch * kept * width, recipe.eval_batch_size * beams * cached)
        return self._weights + TYPICAL_TOKENS * values * self.dtype.itemsize

    def that_fits(self, recipe: TrainRecipe, micro_batch: int | None, free: int) -> Footprint:
        """Return the footprint at the given micro-batch; without one, at the largest that fits, or at one sample.

        Args:
            recipe: settings of the run.
            micro_batch: value of `--micro-batch`; None for `auto`.
            free: bytes of free memory.
        """
        size = MicroBatch.of(micro_batch, recipe.batch_size, self.processes)
        while True:
            found = self.bytes(recipe, size.size)
            if not size.automatic or size.size == 1 or found <= free:
                return Footprint(found, size.size)
            size.halve()


def options_that_fit(
    sizes: Sizes, recipe: TrainRecipe, micro_batch: int | None, free: int
) -> tuple[str, Footprint] | None:
    """Return the options that make a run fit and its footprint with them; None if there are none.

    What changes no result comes first: gradient checkpointing and smaller batches of evaluation, then 8 and 4 bits.

    Args:
        sizes: those of the run.
        recipe: settings of the run.
        micro_batch: value of `--micro-batch`; None for `auto`.
        free: bytes of free memory.
    """
    for options, changed, tried in _tries(sizes, recipe):
        found = changed.that_fits(tried, micro_batch, free)
        if found.bytes <= free:
            return options, found
    return None


def _tries(sizes: Sizes, recipe: TrainRecipe) -> Iterator[tuple[str, Sizes, TrainRecipe]]:
    """Yield options in the order in which they are tried, with the sizes and the recipe that follow from them."""
    present = sizes.spec.quantize
    stronger = QUANTIZE if present is None else QUANTIZE[QUANTIZE.index(present) + 1 :]
    if sizes.shards > 1:
        stronger = ()  # quantised layers are not divided
    for quantize in (present, *stronger):
        changed = sizes if quantize == present else sizes.quantised(quantize)
        for recomputes in dict.fromkeys((recipe.gradient_checkpointing, True)):
            batch = recipe.eval_batch_size
            while batch:
                options = {
                    f"--quantize {quantize}": quantize != present,
                    "--set gradient_checkpointing=true": recomputes != recipe.gradient_checkpointing,
                    f"--set eval_batch_size={batch}": batch != recipe.eval_batch_size,
                }
                # A captured step recomputes nothing; without the field, `run` chooses between the two.
                update = {"gradient_checkpointing": recomputes, "captured": False, "eval_batch_size": batch}
                text = " ".join(option for option, is_given in options.items() if is_given)
                yield text, changed, recipe.model_copy(update=update)
                batch //= 2
