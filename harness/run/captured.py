"""Training steps as CUDA graphs, which replay all kernels of a pass without launching them one by one from the host.

At the batch sizes of this field the host is slower than the GPU: a training step of a 7B model launches about ten
thousand small kernels.

A graph has fixed shapes, so batches are padded to a few shapes, and each shape has one graph. A graph also has fixed
memory: a batch is copied into the graph's tensors, and the gradients stay where they are from step to step. The
optimiser runs outside the graphs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from harness.errors import is_out_of_memory
from harness.run.execution import MicroBatch, add_gradients
from harness.run.random_states import RandomStates
from methods.base import Batch

COLUMNS, LABELS = 64, 8
"""Text tokens, and labelled tokens per sample, are padded to multiples of these."""
WARMUP_PASSES = 3
"""Passes before the capture. What happens only once, such as compiling code, happens in them."""

Replay = Callable[[], None]
Capture = Callable[[Replay, Any], Replay]


class Shape(NamedTuple):
    """The shape of a captured batch: samples, text tokens per sample, and labelled tokens per sample."""

    samples: int
    columns: int
    labels: int

    @classmethod
    def of(cls, batch: Batch, samples: int) -> "Shape":
        """Return the smallest shape that a batch fits into.

        Args:
            batch: the batch.
            samples: samples of every captured batch.
        """
        columns, labels = batch.input_ids_BL.shape[1], batch.facts.label_columns_BR.shape[1]
        return cls(samples, -(-columns // COLUMNS) * COLUMNS, -(-labels // LABELS) * LABELS)


@dataclass(frozen=True)
class Graph:
    """One captured pass.

    Attributes:
        batch: the tensors that it reads.
        sums: where it leaves the summed loss and the number of labelled tokens.
        replay: runs it.
    """

    batch: Batch
    sums: Tensor
    replay: Replay


class Captured:
    """Replays each pass as a CUDA graph.

    Args:
        model: a `TunedModel`, in training mode.
        device: the model's device.
        micro_batch: its size is the number of samples of every captured batch.
        capture: records a pass and returns what replays it; None takes `capture_graph`.
        pool: from `torch.cuda.graph_pool_handle`, to share memory with other graphs; None makes one of its own.
    """

    keeps_gradients = True

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        micro_batch: MicroBatch,
        capture: Capture | None = None,
        pool: Any = None,
    ) -> None:
        self.model, self.device, self.micro_batch = model, device, micro_batch
        self._capture = capture_graph if capture is None else capture
        self._graphs: dict[Shape, Graph] = {}
        self._pool: Any = pool

    def add_gradients(self, batch: Batch) -> Tensor:
        """See `harness.run.execution.Execution.add_gradients`."""
        shape = Shape.of(batch, self.micro_batch.size)
        fixed = batch.in_fixed_shape(*shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._record_where_it_fits(fixed)
        graph = self._graphs[shape]
        graph.batch.copy_(fixed)
        graph.replay()
        # The next replay of the same graph overwrites its sums.
        return graph.sums.clone()

    def agreed(self, batches: Sequence[Batch] | Exception) -> Sequence[Batch] | Exception:
        """Return the batches: this process makes its passes by itself."""
        return batches

    def release(self) -> None:
        """See `harness.run.execution.Execution.release`."""
        self._graphs.clear()
        self._pool = None

    def _record_where_it_fits(self, batch: Batch) -> Graph:
        """Capture a pass over batches of this shape, without the other graphs where memory does not hold them all."""
        try:
            return self._record(batch)
        except Exception as error:
            if not (self._graphs and is_out_of_memory(error)):
                raise
        # The passes that warm up a graph cannot use what the other graphs reserve.
        self.release()
        clear_device_cache(garbage_collection=True)
        return self._record(batch)

    def _record(self, batch: Batch) -> Graph:
        """Capture a pass over batches of this shape. Gradients and random states are what they were before."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        before = [p.grad.clone() for p in parameters if p.grad is not None]
        states = RandomStates.now()
        if self._pool is None and self.device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        own = batch.to(self.device).clone()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)

        def run() -> None:
            sums.copy_(add_gradients(self.model, own))

        try:
            return Graph(own, sums, self._capture(run, self._pool))
        finally:
            for parameter, gradient in zip(parameters, before, strict=True):
                assert parameter.grad is not None, "a pass does not remove gradients"
                parameter.grad.copy_(gradient)
            states.restore()


def capture_graph(run: Replay, pool: Any) -> Replay:
    """Record `run` as a CUDA graph and return a function that replays it.

    Args:
        run: must not synchronise with the device, must keep no result, and must use the same tensors in every call.
        pool: from `torch.cuda.graph_pool_handle`. Graphs may share one pool, because no graph leaves a result in it.

    Raises:
        RuntimeError: it cannot be captured.
    """
    stream = _stream(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP_PASSES):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # By default, a capture fails if another thread allocates meanwhile, as the one does that pins batches.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        run()
    return graph.replay


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """Return the stream of all captures on a GPU. cuBLAS keeps working memory for every stream that it has seen."""
    return torch.cuda.Stream(device)
