"""Peak memory of a run or of a step, on the host and on the GPU."""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

from harness.records import PeakMemory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Start a new peak, so that a run does not inherit the one before it."""
    if _CLEAR.exists():
        # 5 resets the peak resident set size, see proc(5). Where that is refused, the peak is the process's.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak(device: torch.device) -> PeakMemory:
    """Peaks since `reset_peak`, in bytes; what the platform does not tell is None."""
    rss = None
    if _STATUS.exists():
        lines = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        rss = int(lines[0].split()[1]) * 1024 if lines else None
    if device.type != "cuda":
        return PeakMemory(rss=rss)
    return PeakMemory(
        rss=rss,
        cuda_allocated=torch.cuda.max_memory_allocated(device),
        cuda_reserved=torch.cuda.max_memory_reserved(device),
    )


def peak_of(step: Callable[[], None], device: torch.device) -> PeakMemory:
    """Peaks while `step` runs, with everything that is there before it.

    What earlier steps have freed goes back to the system first, or the highest of them would be every step's peak. That
    makes the step slower: do not time it.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None  # glibc has it
    if trim is not None:
        trim(0)
    reset_peak(device)
    step()
    return read_peak(device)
