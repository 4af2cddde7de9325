"""Peak memory of a run or of one step, on the host and on the GPU."""

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache

from harness.records import PeakMemory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Reset the peaks, so that a run does not report the peak of the run before it.

    Memory that this process has freed but kept is returned to the system first, because it would count as used.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None  # only glibc has it
    if trim is not None:
        trim(0)
    if _CLEAR.exists():
        # Writing 5 resets the peak resident set size, see proc(5). Without the permission, the peak since the
        # start of the process is reported.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak(device: torch.device) -> PeakMemory:
    """Return the peaks since `reset_peak` in bytes; None if the platform does not report a peak."""
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


def main_peak(peak: PeakMemory, device: torch.device) -> int | None:
    """Return the one peak that says most: what torch allocated on a GPU, else the process's resident memory."""
    return peak.rss if device.type != "cuda" else peak.cuda_allocated


def largest_peak(one: PeakMemory, other: PeakMemory) -> PeakMemory:
    """Return the larger peak of each kind; one that is not known counts as none."""
    kinds = {name: (getattr(one, name), getattr(other, name)) for name in PeakMemory.model_fields}
    return PeakMemory(**{name: max((p for p in peaks if p is not None), default=None) for name, peaks in kinds.items()})


def peak_of(step: Callable[[], None], device: torch.device) -> PeakMemory:
    """Return the peaks in bytes while `step` runs, including what is allocated before it.

    Memory that earlier steps have freed is returned to the system first, so that they add nothing to this peak. This
    slows the step down, so do not time it.

    Args:
        step: called once.
        device: where it computes.
    """
    clear_device_cache(garbage_collection=True)
    reset_peak(device)
    step()
    return read_peak(device)
