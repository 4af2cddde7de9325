"""The device that `--device` names."""

import pytest
import torch

from harness import processes
from harness.backbone.machine import torch_device
from harness.errors import UserError


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1), ("auto", 0)])
def test_a_gpu_is_made_current_by_its_index(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # torch's `set_device` needs an index, which a device named `cuda` does not have.
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    assert torch_device(name) == torch.device("cuda", index) and chosen == [index]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_process_finds_that_there_are_too_few_gpus(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one alone prints, and it has a GPU."""
    for name, value in ((processes.COUNT, "2"), (processes.LOCAL_COUNT, "2"), (processes.LOCAL_RANK, rank)):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes on this machine, but 1 GPUs"):
        torch_device("cuda")
