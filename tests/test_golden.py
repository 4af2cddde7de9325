"""The methods compute what their published code computes, and the check can fail."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import golden_check

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", golden_check.CHECKS)
def test_method_matches_its_published_code(name: str) -> None:
    result = golden_check.check_set(GOLDEN, name)
    assert not result.failures, golden_check.line(name, result)


def test_every_known_set_is_shipped() -> None:
    assert golden_check.sets_in(GOLDEN) == list(golden_check.CHECKS)


def _disturbed(folder: Path, tensor: str, by: float) -> None:
    shutil.copy(GOLDEN / "memvp.json", folder)
    tensors = load_file(GOLDEN / "memvp.safetensors")
    tensors[tensor] = tensors[tensor] + by * torch.ones_like(tensors[tensor])
    save_file(tensors, folder / "memvp.safetensors")


@pytest.mark.parametrize(
    ("tensor", "by", "miss"),
    [
        ("out/logits", 1e-4, "logits"),
        ("out/loss", 1e-3, "loss"),
        ("grad/adapter_emb1", 1e-3, "grads"),
        ("grad/adapter_proj.fc2.bias", float("nan"), "grads"),
        ("gen/step_logits", 1e-3, "logits"),
    ],
)
def test_a_difference_is_a_miss_and_a_failing_exit(
    tensor: str, by: float, miss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _disturbed(tmp_path, tensor, by)
    assert golden_check.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.rstrip().endswith(f"MISS: {miss}")


def test_a_matching_folder_exits_zero_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _disturbed(tmp_path, "out/logits", 0.0)
    assert golden_check.main([str(tmp_path)]) == 0
    name, _, logits, _, gradients, verdict = capsys.readouterr().out.split()
    assert (name, verdict) == ("memvp", "ok")
    assert float(logits) <= 5e-5 and float(gradients) <= 1e-4


def test_a_folder_without_a_known_set_exits_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert golden_check.main([str(tmp_path)]) == 2
    assert "no known golden set" in capsys.readouterr().err
