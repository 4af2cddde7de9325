"""How runs share the cores."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from harness.backbone.machine import Machine
from harness.config.presets import resolve_spec
from harness.errors import UserError
from harness.run import cores
from harness.run.cores import Cores, compute_threads, divide_cores

CPU = Machine(torch.device("cpu"), torch.float32)
TINY = resolve_spec("tiny", None, None)
OWN = replace(TINY, shipped=False)


@pytest.fixture(autouse=True)
def four_cores() -> Iterator[None]:
    with compute_threads(4):
        yield


def test_the_threads_of_the_shipped_model_never_depend_on_the_jobs() -> None:
    assert divide_cores(None, None, TINY, CPU) == Cores(4, 1)
    assert [divide_cores(jobs, None, TINY, CPU).threads for jobs in (1, 2, 9)] == [1, 1, 1]


def test_another_model_takes_all_cores_for_one_run_unless_jobs_are_given() -> None:
    assert divide_cores(None, None, OWN, CPU) == Cores(1, 4)
    assert divide_cores(2, None, OWN, CPU) == Cores(2, 2)
    assert divide_cores(9, None, OWN, CPU) == Cores(9, 1)


def test_given_threads_are_kept_and_fill_the_cores_with_runs() -> None:
    assert divide_cores(None, 2, TINY, CPU) == Cores(2, 2)
    assert divide_cores(None, 9, TINY, CPU) == Cores(1, 9)
    assert divide_cores(3, 5, TINY, CPU) == Cores(3, 5)


def test_runs_that_do_not_fit_into_memory_together_are_not_made_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "free_memory", lambda device: 5 * cores.PROCESS_BYTES // 2)
    assert divide_cores(None, None, TINY, CPU).jobs == 2
    monkeypatch.setattr(cores, "free_memory", lambda device: 0)
    assert divide_cores(None, None, TINY, CPU).jobs == 1


def test_jobs_are_for_one_process_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Machine(torch.device("cuda", 0), torch.bfloat16)
    assert divide_cores(None, None, TINY, gpu) == Cores(1, 4)
    with pytest.raises(UserError, match=r"--jobs 2: .* on cuda"):
        divide_cores(2, None, TINY, gpu)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert divide_cores(None, None, TINY, CPU).jobs == 1
    with pytest.raises(UserError, match=r"--jobs 2: .* launcher"):
        divide_cores(2, None, TINY, CPU)
