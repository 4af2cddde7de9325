"""A step as a CUDA graph: the same kernels on the same data, without the host that launches them one by one.

At the batch sizes of this field the host is slower than the GPU it feeds: a training step of a 7B model is some ten
thousand small calls. What the device itself takes shows once they are one.
"""

from collections.abc import Callable
from typing import Any

import torch

WARMUP_STEPS = 3
"""Before the capture: what is made once, such as compiled code and the optimiser's state, is no part of a step."""


def capture(step: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Record `step` once, and return what replays it.

    Args:
        step: must not synchronise with the device, keep no result, and find its tensors where they were.
        pool: from `torch.cuda.graph_pool_handle`. Graphs may share one, as none leaves a result in it.
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
