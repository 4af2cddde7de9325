"""What a dry run prints: the resolved runs, their estimated cost, and what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Run


def _rows_of(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects at the beginning of a text."""
    decoder, rows = json.JSONDecoder(), []
    while text.lstrip().startswith("{"):
        row, end = decoder.raw_decode(text.lstrip())
        rows.append(row)
        text = text.lstrip()[end:]
    return rows


def test_dry_run_says_what_would_be_done(call: Run, base: list[str], tmp_path: Path) -> None:
    done = call(*base, "--methods", "memvp,dehvf,oracle", "--set", "memvp.base_lr=0.5", "--dry-run")
    assert done.code == 0 and "nothing is missing" in done.out
    memvp, dehvf, oracle = _rows_of(done.out)
    assert (memvp["run"], memvp["train"]["base_lr"], memvp["train"]["batch_size"]) == ("memvp", 0.5, 4)
    assert memvp["learning_rate"] == pytest.approx(0.5 * 4 / 256)
    assert memvp["steps"] == dehvf["steps"] == 3
    assert dehvf["trainable"] > 0 and dehvf["method"]["num_groups"] == 4
    assert all(row[key] > 0 for row in (memvp, dehvf) for key in ("free_memory_gib", "trainable_paper_convention"))
    assert oracle["run"] == "oracle" and "trainable" not in oracle
    assert not (tmp_path / "results").exists()


def test_dry_run_of_the_paper_says_what_is_missing(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.dryrun._matmul_rate", lambda spec, machine: 1e12)
    monkeypatch.setattr("harness.run.dryrun.free_memory", lambda device: 2**30)
    done = call("run", "--model", "7b", "--methods", "memvp", "--dry-run")
    assert done.code == 2
    missing = [line for line in done.out.splitlines() if line.startswith("missing: ")]
    assert [line for line in missing if "--data-root DIR" in line]
    assert [line for line in missing if "huggyllama/llama-7b" in line and "--llm PATH" in line]
    assert [line for line in missing if "ViT-L-14-quickgelu:openai" in line and "--clip" in line]
    assert [line for line in missing if "GiB of memory on cpu, which has 1.0 GiB free" in line]
    assert len(missing) == 4
    (row,) = _rows_of(done.out)
    assert (row["paper_trainable"], row["learning_rate"]) == ("3.9M", pytest.approx(1.125e-3))
    assert "steps" not in row  # the number of steps depends on the data
