"""Runs as tasks of a Ray cluster, or of a small one on this machine."""

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from harness.backbone.machine import Machine
from harness.errors import UserError, first_line
from harness.run.attempt import Attempt
from harness.run.executor import LostError
from harness.run.unit import Unit


class RayJob:
    """A run that Ray makes; see `Job`.

    Args:
        reference: to its result.
    """

    def __init__(self, reference: Any) -> None:
        self._reference, self._cancelled = reference, False

    def done(self) -> bool:
        """See `Job.done`."""
        ready, _ = ray.wait([self._reference], timeout=0)
        return bool(ready)

    def result(self) -> Attempt | UserError:
        """See `Job.result`."""
        try:
            found: Attempt | UserError = ray.get(self._reference)
        except TaskCancelledError as error:
            # Ray says so, too, of a process that something else has stopped by SIGTERM or SIGINT.
            reason = "Ray has cancelled it" if self._cancelled else "a signal stopped its process"
            raise LostError(reason, again=not self._cancelled) from error
        except RayTaskError as error:
            raise LostError(f"{type(error.cause).__name__}: {first_line(error.cause)}", again=False) from error
        except RayError as error:
            raise LostError(f"{type(error).__name__}: {first_line(error)}", again=True) from error
        return found

    def cancel(self) -> None:
        """See `Job.cancel`. Ray raises KeyboardInterrupt in a task that it has begun."""
        self._cancelled = True
        ray.cancel(self._reference, force=False)


class RayExecutor:
    """Makes runs in a Ray cluster; see `Executor`.

    Args:
        machine: device, dtype and kind of weights of the runs.
        threads: compute threads of a run, and the cores that it asks for.
        memory: bytes of memory that a run needs on the host.
        jobs: largest number of runs at a time; None if the cluster decides.
    """

    def __init__(self, machine: Machine, threads: int, memory: int, jobs: int | None) -> None:
        self.machine, self.threads, self.jobs = machine, threads, jobs
        self._needs = {"CPU": threads, "GPU": int(machine.device.type == "cuda"), "memory": memory}

    def open(self, say: Callable[[str], None]) -> None:
        """See `Executor.open`. `RAY_ADDRESS` names a cluster; without one, Ray starts on this machine."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
        on_stop = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises an Exception of no kind where its own processes do not start in time
            reason = first_line(error).rstrip(".")
            raise UserError(f"--executor ray: {reason}; correct RAY_ADDRESS, or start the cluster") from error
        signal.signal(signal.SIGTERM, on_stop)  # Ray has set one that ends the process without its records
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not (lacking := _lacking(self._needs, machines)):
            return
        if len(machines) == 1 and not os.environ.get("RAY_ADDRESS"):
            # Without an address, Ray has most likely started here, and no other machine will ever join this one.
            raise UserError(f"--executor ray: a run asks for {lacking}; give the cluster's address in RAY_ADDRESS")
        say(f"--executor ray: a run asks for {lacking}; runs wait until a machine has it")

    def submit(self, unit: Unit) -> RayJob:
        """See `Executor.submit`. Each run has a process of its own."""
        task: Any = ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            memory=self._needs["memory"],
            max_calls=1,
            # Ray would repeat a run that fills the memory of its machine without end, and tell nobody.
            max_retries=0,
        )(_make)
        return RayJob(task.options(name=unit.wanted.plan.name).remote(unit))

    def close(self) -> None:
        """See `Executor.close`."""
        ray.shutdown()


def _make(unit: Unit) -> Attempt | UserError:
    """Make a run, in a process that Ray has started."""
    return unit()


def _lacking(needs: Mapping[str, int], machines: Sequence[Mapping[str, float]]) -> str:
    """Return in words what of a run's needs the machine lacks that lacks least; empty if one has all of them."""
    lacks = (
        [
            f"{name} {need:,} (the machine that comes closest has {machine.get(name, 0):,.0f})"
            for name, need in needs.items()
            if need > machine.get(name, 0)
        ]
        for machine in machines or [{}]
    )
    least = min(lacks, key=len)
    return ", ".join(least)
