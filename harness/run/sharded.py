"""Frozen decoder layers that are divided among the processes of a run, by FSDP2 of torch.

Every process keeps a part of the frozen weights of each layer. The processes collect the weights of a layer from one
another right before it runs, and drop them right after. What is trained stays whole in every process, as without FSDP,
so the optimiser step, the adapter and the checkpoints do not change.

A layer can be collected only while all processes run it. So all of them make the same number of passes in training, and
all of them answer every batch of an evaluation.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.errors import UserError
from harness.processes import Processes, shards
from harness.run.execution import add_gradients
from methods.base import Backbone, Batch, VisualFeatures
from methods.tuned import DecodingState, TunedModel

CONFIGURATION = "configs/accelerate/fsdp.yaml"
SETTINGS = {
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}
"""What `accelerate launch` must pass on of its configuration. Other values are ignored, or leave weights unloaded."""
ENTRANCES = ("summed_loss", "prefill", "step")
"""The methods of a `TunedModel` that run its layers."""


def require_shardable(quantize: str | None, micro_batch: int | None) -> None:
    """Check that the layers can be divided, if the launcher asks for that.

    Args:
        quantize: how the language model is quantised; None for not at all.
        micro_batch: samples per forward pass; None leaves it to the run.

    Raises:
        UserError: they cannot.
    """
    if shards() == 1:
        return
    for name, value in SETTINGS.items():
        if (found := os.environ.get(name, "not set").lower()) != value:
            raise UserError(f"accelerate launch: {name} is {found}, not {value}; give --config_file {CONFIGURATION}")
    if quantize is not None:
        raise UserError(f"--quantize {quantize}: quantised layers are not divided; leave it out, or drop FSDP")
    if micro_batch is None:
        raise UserError("--micro-batch: processes that share the layers cannot find it; give --micro-batch N")


class ShardedModel(TunedModel):
    """A `TunedModel` whose frozen decoder layers are divided among processes.

    Args:
        backbone: the backbone that `method` was built on, on the CPU. Its weights come to the device.
        method: as for `TunedModel`, on the device.
        device: the device of this process.
        processes: those that share the layers.
        say: called with a line about how much this process holds.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Any,
        device: torch.device,
        processes: Processes,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(backbone, method)
        self.processes = processes
        mesh = init_device_mesh(device.type, (processes.count,))
        layers = self.llm.model.layers
        frozen = [p for layer in layers for p in layer.parameters() if not p.requires_grad]
        whole = sum(p.numel() * p.element_size() for p in frozen)
        for layer in layers:
            trained = {p for p in layer.parameters() if p.requires_grad}
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
        others = {p for p in self.parameters() if not isinstance(p, DTensor)}
        for parameter in others:
            parameter.data = parameter.data.to(device)
        # The layers need a common root, which collects the next one while one computes.
        fully_shard(self, mesh=mesh, ignored_params=others)
        for name in ENTRANCES:
            register_fsdp_forward_method(self, name)
        own = [p.to_local() for p in self.parameters() if isinstance(p, DTensor)]
        held = sum(part.untyped_storage().nbytes() for part in own)
        say(
            f"each of {processes.count} processes keeps a part of the frozen decoder layers: "
            f"the first one {held:,} of {whole:,} bytes"
        )

    def prefill(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, DecodingState]:
        """Return what `TunedModel.prefill` returns, with the first process's logits in every process."""
        with self.processes.in_step():
            logits_BV, state = super().prefill(batch, visual)
        return self.processes.of_first(logits_BV), state

    def step(self, tokens_B: Tensor, state: DecodingState) -> Tensor:
        """Return what `TunedModel.step` returns, with the first process's logits in every process.

        A last bit that differs between two GPUs may decide on a token, and then on how many steps follow.
        """
        with self.processes.in_step():
            logits_BV = super().step(tokens_B, state)
        return self.processes.of_first(logits_BV)


class InStep:
    """Makes as many passes in every process; see `harness.run.execution.Execution`.

    A process that has fewer batches than another passes a short text, whose gradients count nothing.

    Args:
        model: the model, in training mode.
        device: its device.
        preprocessor: image size and normalisation.
        max_length: of the recipe.

    Raises:
        UserError: `max_length` cuts off the answer of the short text.
    """

    keeps_gradients = False

    def __init__(
        self, model: ShardedModel, device: torch.device, preprocessor: ImagePreprocessor, max_length: int
    ) -> None:
        self.model, self.device, self.processes = model, device, model.processes
        collator = Collator(model.backbone.tokenizer, preprocessor, max_length)
        self._filler = Batch(**collator([Example("filler", "a", "b")]))
        if not len(self._filler.facts.label_rows_Q):
            raise UserError(f"--set max_length={max_length}: leaves no room for an answer; give a larger number")

    def agreed(self, batches: Sequence[Batch] | Exception) -> Sequence[Batch] | Exception:
        """Return the batches and as many fillers as other processes have more batches; none if one has failed."""
        counts = self.processes.gather(None if isinstance(batches, Exception) else len(batches))
        if isinstance(batches, Exception) or None in counts:
            return batches if isinstance(batches, Exception) else []
        most = max(count for count in counts if count is not None)
        return [*batches, *[self._filler] * (most - len(batches))]

    def add_gradients(self, batch: Batch) -> Tensor:
        """See `harness.run.execution.Execution.add_gradients`; a filler adds zeros and has no labelled token."""
        with self.processes.in_step():
            if batch is not self._filler:
                return add_gradients(self.model, batch.to(self.device))
            loss, _ = self.model.summed_loss(batch.to(self.device))
            (0.0 * loss).backward()
            return torch.zeros(2, dtype=torch.float64, device=self.device)

    def release(self) -> None:
        """Do nothing: no memory is kept."""
