"""Runs as jobs of a Slurm cluster, through submitit; without Slurm, as processes on this machine."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
import torch
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.helpers import Checkpointable
from submitit.local.local import LocalJob

from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB, free_memory
from harness.errors import UserError, first_line
from harness.run.attempt import Attempt
from harness.run.executor import TRIES, LostError
from harness.run.unit import Unit
from harness.stopping import signals_blocked, stop_on_signals

DEFAULT_MINUTES = 24 * 60
LOCAL = "local"
"""submitit's name for this machine, which it uses where there is no Slurm."""
ONE_PROCESS = ("nodes", "tasks_per_node", "slurm_ntasks_per_node")
"""Parameters that can only be 1, because a run is made by one process."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


class Requeued(Checkpointable):
    """A run that submitit puts back into the queue when its time is over or its machine is taken away.

    Args:
        unit: the run.
        visible_gpus: value of CUDA_VISIBLE_DEVICES in its process; None leaves it as it is.
    """

    def __init__(self, unit: Unit, visible_gpus: str | None = None) -> None:
        self.unit, self.visible_gpus = unit, visible_gpus

    def __call__(self) -> Attempt | UserError:
        """Make the run, see `Unit`.

        By itself, submitit would end the process in the middle of an optimiser step when its time is over. So its
        signal first stops the run like any other one, and submitit's handler is called when the checkpoint is written.
        """
        if self.visible_gpus is not None:
            os.environ[VISIBLE_GPUS] = self.visible_gpus
        time_over = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        requeue: Any = signal.getsignal(time_over)
        came: list[tuple[int, FrameType | None]] = []

        def stop(signum: int, frame: FrameType | None) -> None:
            came.append((signum, frame))
            signal.raise_signal(signal.SIGTERM)

        try:
            with stop_on_signals(once=True):
                signal.signal(time_over, stop)
                return self.unit()
        except KeyboardInterrupt:
            if came:
                requeue(*came[0])  # ends the process
            raise
        finally:
            signal.signal(time_over, requeue)


class SubmititJob:
    """A run that submitit has submitted; see `Job`.

    Args:
        job: submitit's own.
    """

    def __init__(self, job: Any) -> None:
        self._job = job

    def done(self) -> bool:
        """See `Job.done`."""
        return bool(self._job.done())

    def result(self) -> Attempt | UserError:
        """See `Job.result`."""
        logs = f"see {self._job.paths.stderr}"
        try:
            found: Attempt | UserError = self._job.result()
        except FailedJobError as error:
            raise LostError(f"its job {self._job.job_id} failed; {logs}", again=False) from error
        except UncompletedJobError as error:
            state = str(self._job.state)
            reason = f"its job {self._job.job_id} ended without a result ({state}); {logs}"
            raise LostError(reason, again=not state.startswith("CANCELLED")) from error
        return found

    def cancel(self) -> None:
        """See `Job.cancel`. Without Slurm, submitit itself would end the process after a second."""
        if isinstance(self._job, LocalJob):
            with suppress(ProcessLookupError):
                os.kill(int(self._job.job_id), signal.SIGTERM)
        else:
            self._job.cancel(check=False)


class SubmititExecutor:
    """Makes runs as jobs of Slurm; see `Executor`.

    Args:
        machine: device, dtype and kind of weights of the runs.
        threads: compute threads of a run, and the cores that it asks for.
        memory: bytes of memory that a run needs on the host.
        jobs: largest number of jobs at a time; None if Slurm decides. Without Slurm, as many as have cores and memory,
            or one on the GPU.
        folder: where submitit keeps its files and what the jobs print; all machines share it.
        parameters: what submitit or Slurm are told besides, see `--submitit`.

    Raises:
        UserError: submitit does not know a parameter, the folder cannot be made, or there are several jobs for a GPU.
    """

    def __init__(
        self,
        machine: Machine,
        threads: int,
        memory: int,
        jobs: int | None,
        folder: Path,
        parameters: Mapping[str, Any],
    ) -> None:
        self.machine, self.threads, self.jobs = machine, threads, jobs
        try:
            self._executor: Any = submitit.AutoExecutor(folder, slurm_max_num_timeout=TRIES)
        except OSError as error:
            raise UserError(f"--results {folder.parent}: cannot be written ({error.strerror}); give another") from error
        self._visible_gpus: str | None = None
        if self._executor.cluster == LOCAL:
            # Nothing else keeps a job waiting until a core, memory or the GPU is free.
            if machine.device.type == "cpu":
                most = min(torch.get_num_threads() // threads, free_memory(machine.device) // memory)
                self.jobs = max(1, most) if jobs is None else jobs
            elif jobs is None or jobs == 1:
                self.jobs = 1
                self._visible_gpus = os.environ.get(VISIBLE_GPUS)  # submitit gives its processes GPU 0
            else:
                where = f"on {machine.device.type} without Slurm"
                raise UserError(f"--jobs {jobs}: no runs are made side by side {where}; leave --jobs out")
        given: dict[str, Any] = {
            "timeout_min": DEFAULT_MINUTES,
            "cpus_per_task": threads,
            "gpus_per_node": int(machine.device.type == "cuda"),
            "mem_gb": -(-memory // GIB),
            **parameters,
        }
        # The name that is for this cluster alone means the same and wins, but submitit does not check its type.
        prefix = f"{self._executor.cluster}_"
        for name in ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "tasks_per_node"):
            if prefix + name in given:
                given[name] = given.pop(prefix + name)
        for name in ONE_PROCESS:
            if given.get(name, 1) != 1:
                reason = "each run is made by one process on one machine"
                raise UserError(f"--submitit {name}={given[name]}: {reason}; leave it out")
        try:
            self._executor.update_parameters(**given)
        except (NameError, ValueError, AssertionError, TypeError) as error:
            raise UserError(f"--submitit: {first_line(error)}; correct it, or leave it out") from error

    def open(self, say: Callable[[str], None]) -> None:
        """See `Executor.open`."""
        say(f"--executor submitit: {self._executor.cluster}; jobs and what they print are in {self._executor.folder}")

    def submit(self, unit: Unit) -> SubmititJob:
        """See `Executor.submit`."""
        self._executor.update_parameters(name=unit.wanted.plan.name.replace(" ", "-"))
        try:
            # From a terminal, this process alone gets it, and cancels the jobs.
            with signals_blocked([signal.SIGINT]):
                return SubmititJob(self._executor.submit(Requeued(unit, self._visible_gpus)))
        except (FailedJobError, FailedSubmissionError, OSError) as error:  # the first one is of sbatch itself
            raise UserError(f"--executor submitit: {first_line(error)}; correct --submitit") from error

    def close(self) -> None:
        """See `Executor.close`."""
