"""The executor for Ray, without Ray's own processes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import UserError
from harness.run.executor import LostError
from tests.harness.run.executors import NEEDS_RAY

pytestmark = NEEDS_RAY


@pytest.mark.parametrize("cancelled", [False, True])
def test_only_a_run_that_was_cancelled_here_is_not_begun_again(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from harness.run.executor_ray import RayJob

    def get(reference: object) -> None:
        raise ray.exceptions.TaskCancelledError  # as Ray also says of a process that got SIGTERM

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda reference, force: None)
    job = RayJob(object())
    if cancelled:
        job.cancel()
    with pytest.raises(LostError) as lost:
        job.result()
    assert lost.value.again is not cancelled


def opened(nodes: list[dict[str, Any]], address: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said when a run needs 4 cores and a GPU of a cluster."""
    import ray

    from harness.run.executor_ray import RayExecutor

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    sums = {name: sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU", "memory")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: sums)
    machine: Any = SimpleNamespace(device=torch.device("cuda"))
    said: list[str] = []
    RayExecutor(machine, threads=4, memory=100, jobs=None).open(said.append)
    return said


def node(cores: float, gpus: float, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cores, "GPU": gpus, "memory": 200.0}}


def test_a_cluster_needs_one_machine_that_has_all_a_run_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened([node(2, 0), node(8, 1)], "", monkeypatch) == []
    (line,) = opened([node(8, 0), node(2, 1)], "", monkeypatch)
    assert "GPU 1 (the machine that comes closest has 0); runs wait until a machine has it" in line
    (line,) = opened([node(8, 1, alive=False), node(2, 1), node(2, 0)], "", monkeypatch)
    assert "CPU 4 (the machine that comes closest has 2)" in line and "GPU" not in line


def test_no_run_waits_for_what_this_machine_alone_will_never_have(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a run asks for GPU 1 \(.+\); give the cluster's address in RAY_ADDRESS"):
        opened([node(8, 0)], "", monkeypatch)
    assert opened([node(8, 1)], "", monkeypatch) == []
    assert len(opened([node(8, 0)], "auto", monkeypatch)) == 1
