"""The executor for submitit, without processes of its own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.backbone.requirements import GIB
from harness.errors import UserError
from harness.stopping import stop_held_back, stop_on_signals
from tests.harness.run.executors import NEEDS_SUBMITIT

pytestmark = NEEDS_SUBMITIT
Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make an executor for processes on a machine of eight cores and 5 GiB of free memory, or for Slurm."""
    import submitit

    from harness.run import executor_submitit

    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(executor_submitit, "free_memory", lambda device: 5 * GIB)

    def made(
        device: str = "cpu",
        jobs: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        cluster: str = "local",
    ) -> Any:
        monkeypatch.setattr(submitit.AutoExecutor, "which", staticmethod(lambda: cluster))
        machine: Any = SimpleNamespace(device=torch.device(device))
        return executor_submitit.SubmititExecutor(machine, 1, 2 * GIB, jobs, tmp_path / "submitit", parameters or {})

    return made


def test_without_slurm_there_are_as_many_jobs_as_have_cores_and_memory(make: Make) -> None:
    assert make().jobs == 2 and make(jobs=3).jobs == 3


def test_without_slurm_one_run_at_a_time_has_the_gpu(make: Make) -> None:
    assert make("cuda").jobs == 1 and make("cuda", jobs=1).jobs == 1
    with pytest.raises(UserError, match="--jobs 2: no runs are made side by side on cuda without Slurm"):
        make("cuda", jobs=2)


@dataclass(frozen=True)
class VisibleGpus:
    """A unit that returns which GPUs it sees."""

    wanted: Any

    def __call__(self) -> Any:
        return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize(("visible", "seen"), [("GPU-8f3c", "GPU-8f3c"), ("2,3", "2,3"), (None, "0")])
def test_without_slurm_a_run_sees_the_gpus_that_the_user_has_chosen(
    visible: str | None, seen: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.core.utils import DelayedSubmission
    from submitit.local import local

    started: dict[str, Any] = {}

    def start_controller(**options: Any) -> Any:
        started.update(options)
        return SimpleNamespace(pid=1, poll=lambda: 0)

    monkeypatch.setattr(local, "start_controller", start_controller)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    unit: Any = VisibleGpus(SimpleNamespace(plan=SimpleNamespace(name="a run")))
    job = make("cuda").submit(unit)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", started["cuda_devices"])  # as in the process that submitit starts
    assert DelayedSubmission.load(job._job.paths.submitted_pickle).result() == seen


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("nodes", 2, "--submitit nodes=2: each run is made by one process on one machine; leave it out"),
        ("local_nodes", 2, "--submitit nodes=2: "),
        ("tasks_per_node", 2, "--submitit tasks_per_node=2: "),
        ("local_tasks_per_node", 2, "--submitit tasks_per_node=2: "),
        ("slurm_ntasks_per_node", 2, "--submitit slurm_ntasks_per_node=2: "),
        ("local_timeout_min", "abc", '--submitit: Parameter "timeout_min" expected type'),
    ],
)
def test_parameters_that_no_run_can_use_are_refused_first(key: str, value: Any, message: str, make: Make) -> None:
    with pytest.raises(UserError) as refused:
        make(parameters={key: value})
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_a_parameter_for_this_cluster_alone_wins(make: Make) -> None:
    executor = make(parameters={"local_timeout_min": 5, "timeout_min": 7, "slurm_timeout_min": 9, "nodes": 1})
    assert executor._executor._executor.parameters["timeout_min"] == 5


def test_what_sbatch_refuses_is_one_line(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("srun", "sbatch"):
        (programs / name).write_text("#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    unit: Any = VisibleGpus(SimpleNamespace(plan=SimpleNamespace(name="a run")))
    with pytest.raises(UserError, match="--executor submitit: sbatch: error: no such partition; correct --submitit"):
        make(cluster="slurm").submit(unit)


@pytest.fixture
def happened() -> Iterator[list[str]]:
    """What happens, to which submitit's handler adds when it puts a run back into the queue."""
    found: list[str] = []

    def requeue(signum: int, frame: object) -> None:
        found.append("requeued")
        sys.exit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    yield found
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("signum", "end", "rest"),
    [(signal.SIGUSR2, SystemExit, ["requeued"]), (signal.SIGTERM, KeyboardInterrupt, [])],
    ids=["time over", "stopped"],
)
def test_a_run_whose_time_is_over_is_put_back_when_its_checkpoint_is_written(
    signum: signal.Signals, end: type[BaseException], rest: list[str], happened: list[str]
) -> None:
    from harness.run.executor_submitit import Requeued

    def unit() -> None:
        with stop_on_signals(once=True):
            try:
                with stop_held_back():
                    signal.raise_signal(signum)
                    happened.append("step made")
            except KeyboardInterrupt:
                happened.append("checkpoint written")
                raise

    made: Any = unit
    with pytest.raises(end):
        Requeued(made)()
    assert happened == ["step made", "checkpoint written", *rest]
