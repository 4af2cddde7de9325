"""The executors by their names, and what a run must ask for that another machine makes."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.backbone.machine import Machine
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from harness.processes import local_rank
from harness.run.cores import memory_needed
from harness.run.executor import Executor

LOCAL = "local"
"""The value of `--executor` that makes runs on this machine, without an executor."""
EXTRAS = {"ray": "ray", "submitit": "slurm"}
"""Name of an executor, which is that of its package -> the extra of this project that installs it."""


def require_executor(name: str, parameters: Mapping[str, Any]) -> None:
    """Check that an executor can be used.

    Args:
        name: value of `--executor`.
        parameters: value of `--submitit`.

    Raises:
        UserError: there is no such executor, its package is not installed, or an option does not suit it.
    """
    if parameters and name != "submitit":
        raise UserError("--submitit: is for --executor submitit; leave it out, or give both")
    if name == LOCAL:
        return
    if name not in EXTRAS:
        raise UserError(f"--executor {name}: no such executor; give one of {', '.join([LOCAL, *EXTRAS])}")
    if importlib.util.find_spec(name) is None:
        raise UserError(f'--executor {name}: the package is not installed; run `pip install -e ".[{EXTRAS[name]}]"`')
    if local_rank() is not None:
        raise UserError(f"--executor {name}: a launcher started this process; leave --executor or the launcher out")


def make_executor(
    name: str,
    spec: BackboneSpec,
    machine: Machine,
    jobs: int | None,
    threads: int | None,
    results: Path,
    parameters: Mapping[str, Any],
) -> Executor | None:
    """Return an executor, whose package must be installed; None where the runs are made without one.

    Args:
        name: value of `--executor`.
        spec: the backbone of the runs.
        machine: device, dtype and kind of weights of the runs.
        jobs: value of `--jobs`; None leaves it to the cluster how many runs are made at a time.
        threads: value of `--threads`; needed for all but the shipped backbone, see `divide_cores`.
        results: folder of the records.
        parameters: value of `--submitit`.

    Raises:
        UserError: an option is missing or wrong.
    """
    if name == LOCAL:
        return None
    if machine.weights == "random" and machine.device.type != "cpu":
        raise UserError(f"--weights random: a GPU draws others than this machine; give --executor {LOCAL}")
    if spec.quantize is not None:
        reason = "this machine cannot hash what the GPU of another one quantises"
        raise UserError(f"--quantize {spec.quantize}: {reason}; give --executor {LOCAL}")
    if threads is None and not spec.shipped:
        raise UserError(f"--executor {name}: needs the number of cores of a run; give --threads N")
    threads = threads or 1
    memory = memory_needed(spec, machine)
    if name == "ray":
        from harness.run.executor_ray import RayExecutor

        return RayExecutor(machine, threads, memory, jobs)
    from harness.run.executor_submitit import SubmititExecutor

    return SubmititExecutor(machine, threads, memory, jobs, results.absolute() / "submitit", parameters)
