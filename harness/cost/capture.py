"""Capture a step as a CUDA graph, which replays all its kernels without launching them one by one from the host.

At the batch sizes of this field the host is slower than the GPU: a training step of a 7B model launches about ten
thousand small kernels. Replaying them as one graph shows how long the GPU itself takes.
"""

from collections.abc import Callable
from typing import Any

import torch

WARMUP_STEPS = 3
"""Steps before the capture. What happens only once, such as compiling code and creating the optimiser's state, happens
in them and is not part of the graph."""


def capture(step: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Record `step` as a CUDA graph and return a function that replays it.

    Args:
        step: must not synchronise with the device, must keep no result, and must use the same tensors in every call.
        pool: from `torch.cuda.graph_pool_handle`. Graphs may share one pool, because no graph leaves a result in it.

    Raises:
        RuntimeError: the step cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph.replay
