"""How the cores of a machine are divided among the runs of a sweep."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from harness.backbone.language_model import llm_size
from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB, free_memory
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from harness.processes import local_rank

PROCESS_BYTES = 2 * GIB
"""Memory that a process is assumed to need beside the weights of the language model."""


@dataclass(frozen=True)
class Cores:
    """How runs share the cores.

    Attributes:
        jobs: number of runs that are made side by side.
        threads: compute threads of each run.
    """

    jobs: int
    threads: int


def divide_cores(jobs: int | None, threads: int | None, spec: BackboneSpec, machine: Machine) -> Cores:
    """Return how the runs of a sweep share the cores that torch may use: all of them, or OMP_NUM_THREADS.

    The last bits of a result can depend on the number of threads. So that number never depends on how many runs there
    are. It is 1 for the shipped backbone, which is too small to gain much from a second core, and otherwise all cores.

    Args:
        jobs: value of `--jobs`; None fills the cores, as far as memory allows.
        threads: value of `--threads`; None chooses as above, or divides the cores among the `jobs` that are given.
        spec: the backbone.
        machine: device and dtype of the runs.

    Raises:
        UserError: several runs side by side on a GPU, or where a launcher started several processes.
    """
    available = torch.get_num_threads()
    is_launched = local_rank() is not None
    if machine.device.type != "cpu" or is_launched:
        if jobs is not None and jobs > 1:
            where = "in processes that a launcher started" if is_launched else f"on {machine.device.type}"
            raise UserError(f"--jobs {jobs}: no runs are made side by side {where}; leave --jobs out")
        return Cores(1, threads or available)
    if threads is None:
        threads = 1 if spec.shipped else max(1, available // (jobs or 1))
    if jobs is None:
        jobs = max(1, min(available // threads, free_memory(machine.device) // memory_needed(spec, machine)))
    return Cores(jobs, threads)


def memory_needed(spec: BackboneSpec, machine: Machine) -> int:
    """Return the bytes of memory that the process of a run is assumed to need on the host."""
    return llm_size(spec, machine.dtype).bytes + PROCESS_BYTES


@contextmanager
def compute_threads(threads: int) -> Iterator[None]:
    """Let torch compute with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
