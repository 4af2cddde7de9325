"""The device that `--device` names."""

import pytest
import torch

from harness.backbone.machine import torch_device


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1), ("auto", 0)])
def test_a_gpu_is_made_current_by_its_index(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # torch's `set_device` needs an index, which a device named `cuda` does not have.
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    assert torch_device(name) == torch.device("cuda", index) and chosen == [index]
