"""What a dry run prints: a row per run, where its time comes from, the sums, and everything that is missing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.numbers import readable_size
from harness.records import read_records
from harness.run import downloads, duration
from harness.run.checkpoint import KEPT
from harness.run.dryrun import CHECKPOINT_BYTES
from harness.run.sharded import SETTINGS
from tests.command_line import Done, Run
from tests.folders import SIZES


def _found(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_dry_run_says_what_would_be_done(call: Run, base: list[str], tmp_path: Path) -> None:
    options = ["--methods", "memvp,dehvf,oracle", "--seeds", "0,1", "--set", "memvp.base_lr=0.5", "--dry-run"]
    done = call(*base, *options, "--format", "json")
    assert done.code == 0, done.out
    found = _found(done)
    assert [(row["run"], row["seed"]) for row in found["runs"]] == [
        ("memvp", 0),
        ("memvp", 1),
        ("dehvf", 0),
        ("dehvf", 1),
        ("oracle", 0),
    ]
    memvp, _, dehvf, _, oracle = found["runs"]
    assert (memvp["train"]["base_lr"], memvp["train"]["batch_size"]) == (0.5, 4)
    assert memvp["learning_rate"] == pytest.approx(0.5 * 4 / 256)
    assert memvp["steps"] == dehvf["steps"] == 3
    assert dehvf["trainable"] > 0 and dehvf["method"]["num_groups"] == 4
    for row in (memvp, dehvf):
        assert all(row[key] > 0 for key in ("free_memory_gib", "trainable_paper_convention", "step_s", "hours"))
        assert row["hours_source"] == "a short measurement"
    assert oracle["hours"] is None and found["total"]["hours"] is None  # nothing tells how long the oracle takes
    table = call(*base, *options).out
    assert re.search(r"total: 5 runs; hours: 0\.\d+ and 1 run of unknown length", table), table
    assert found["total"]["runs"] == 5 and found["total"]["disk_bytes"] > 0 and found["missing"] == []
    assert not (tmp_path / "results").exists()


def test_times_come_from_records_where_there_are_any(call: Run, base: list[str], tmp_path: Path) -> None:
    assert call(*base, "--methods", "memvp").code == 0
    (record,) = read_records(tmp_path / "results")
    done = call(*base, "--methods", "memvp", "--seeds", "5", "--dry-run", "--format", "json")
    (row,) = _found(done)["runs"]
    assert row["hours_source"] == "a run record"
    assert row["step_s"] == pytest.approx(record.times_s.train_step_median, abs=1e-3)
    table = call(*base, "--methods", "memvp", "--seeds", "5", "--dry-run").out
    line = next(line for line in table.splitlines() if line.startswith("| memvp"))
    assert "a run record" in line
    assert "total: 1 run; hours: " in table and "nothing is missing" in table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.commands.dryrun.terminal_width", lambda: 80)
        shown = call(*base, "--methods", "memvp", "--seeds", "5", "--dry-run").out
    assert "| memvp" not in shown and {"Micro-batch", "memvp", "Steps", "total:"} <= set(shown.split())
    # Another number of threads is another kind of device.
    other = call(*base, "--methods", "memvp", "--threads", "2", "--dry-run", "--format", "json")
    assert _found(other)["runs"][0]["hours_source"] == "a short measurement"


def test_the_time_of_a_run_that_was_made_otherwise_is_not_taken(
    call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "LARGEST_MEASURED", 0)
    monkeypatch.setattr("harness.run.dryrun.PlanChecks", lambda *_: lambda plan: None)  # CUDA graphs need a GPU
    command = (*base, "--methods", "memvp")
    assert call(*command, "--micro-batch", "2").code == 0

    def source(*options: str) -> str | None:
        (row,) = _found(call(*command, *options, "--dry-run", "--format", "json"))["runs"]
        return row["hours_source"]

    asked = ("--micro-batch", "2")
    assert source(*asked) == source(*asked, "--set", "base_lr=0.5") == "a run record"
    assert source("--micro-batch", "4") is source() is None
    for changed in ("gradient_checkpointing=true", "captured=true", "max_length=400", "eval_batch_size=1"):
        assert source(*asked, "--set", changed) is None, changed


def test_what_a_sum_counts(call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration.Paces, "of", lambda *words: duration.Pace(3600.0, 60.0, "a test"))
    command = (*base, "--methods", "memvp,dehvf", "--dry-run", "--format", "json")
    plain = _found(call(*command, "--jobs", "1"))
    assert plain["total"]["hours"] == pytest.approx(2 * (3 + SIZES[2] / 60))
    # Steps 1, 2 and 3 are each followed by a validation.
    validated = _found(call(*command, "--jobs", "1", "--eval-every", "1"))
    assert validated["total"]["hours"] - plain["total"]["hours"] == pytest.approx(2 * 3 * SIZES[1] / 60)
    trained = [row["trainable"] for row in plain["runs"]]
    both = _found(call(*command, "--jobs", "2", "--threads", "1"))
    more = both["total"]["disk_bytes"] - plain["total"]["disk_bytes"]
    assert more == (KEPT + 1) * CHECKPOINT_BYTES * min(trained) > 0
    # A part without a run says so, as the run itself does.
    done = call(*command[:-2], "--shard", "5/5")
    assert done.code == 0 and "--shard 5/5: there are fewer runs than parts" in done.out
    assert "nothing is missing" not in done.out and "total" not in done.out


def test_no_time_where_it_cannot_be_known(call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "LARGEST_MEASURED", 0)
    done = call(*base, "--methods", "memvp", "--dry-run", "--format", "json")
    (row,) = _found(done)["runs"]
    assert row["steps"] == 3 and row["hours"] is row["step_s"] is row["hours_source"] is None
    assert done.code == 0


def test_dry_run_of_the_paper_says_what_is_missing(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.dryrun.free_memory", lambda device: 2**30)
    done = call("run", "--model", "7b", "--methods", "memvp", "--dry-run", "--tracker", "abacus")
    assert done.code == 2
    missing = [line for line in done.out.splitlines() if line.startswith("missing: ")]
    assert [line for line in missing if "--tracker abacus" in line]
    assert [line for line in missing if "--data-root DIR" in line]
    assert [line for line in missing if "huggyllama/llama-7b" in line and "--llm PATH" in line]
    assert [line for line in missing if "ViT-L-14-quickgelu:openai" in line and "--clip" in line]
    assert [line for line in missing if "GiB of memory on cpu, which has 1.0 GiB free" in line]
    assert len(missing) == 5
    (row,) = _found(call("run", "--model", "7b", "--methods", "memvp", "--dry-run", "--format", "json"))["runs"]
    assert (row["paper_trainable"], row["learning_rate"]) == ("3.9M", pytest.approx(1.125e-3))
    assert row["paper"] == pytest.approx(93.07)
    assert row["steps"] is None  # the number of steps depends on the data
    shortened = call(
        "run", "--model", "7b", "--methods", "memvp,oracle", "--dry-run", "--format", "json", "--steps", "7"
    )
    assert [row["steps"] for row in _found(shortened)["runs"]] == [7, None]  # the oracle makes none


def test_memory_is_enough_to_the_last_byte(call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "LARGEST_MEASURED", 0)
    command = (*base, "--methods", "memvp", "--micro-batch", "4", "--dry-run")
    (row,) = _found(call(*command, "--format", "json"))["runs"]
    needed = round(row["memory_gib"] * 2**30)
    for free, code in ((needed, 0), (needed - 1, 2)):
        monkeypatch.setattr("harness.run.dryrun.free_memory", lambda device, free=free: free)
        done = call(*command)
        assert done.code == code and ("MiB of memory on cpu" in done.out) == (code == 2)
        assert f" {round(row['memory_gib'], 2)} " in done.out


def test_every_fault_is_named(call: Run, base: list[str], small_clip: Path) -> None:
    """A sweep stops at the first of these; a dry run names them all."""
    base[base.index("--data-root") + 1] = "nowhere"
    base[base.index("--llm") + 1] = "nowhere/model"
    done = call(*base, "--dry-run", "--tracker", "abacus")
    assert done.code == 2
    missing = [line for line in done.out.splitlines() if line.startswith("missing: ")]
    assert [line for line in missing if "--tracker abacus" in line]
    assert [line for line in missing if "nowhere: no such data folder" in line]
    assert [line for line in missing if "nowhere/model" in line]


def test_downloads_have_a_sum_and_need_room(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hub.is_reachable", lambda url, timeout_s: True)
    monkeypatch.setattr(downloads.constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PEFT_VL_BENCH_DATA", raising=False)
    command = ("run", "--model", "7b", "--methods", "memvp", "--dry-run", "--results", tmp_path / "results")
    for free, fits in ((10**12, True), (10**9, False)):
        monkeypatch.setattr(downloads, "free_space", lambda folder, free=free: free)
        found = _found(call(*command, "--format", "json"))
        # ScienceQA, LLaMA-7B and its vision tower; ScienceQA is written twice.
        assert found["total"]["download_bytes"] == 626_000_000 + 13_480_000_000 + 1_710_000_000
        assert len(found["downloads"]) == 3
        needed = readable_size(16_442_000_000 + found["total"]["disk_bytes"])
        room = [line for line in found["missing"] if f"{needed} to be written to" in line]
        assert len(room) == (0 if fits else 1) and all("1.0 GB free there; free some space" in line for line in room)
    done = call(*command)
    assert done.code == 2 and "; downloads: 15.8 GB\n" in done.out and "missing: room on the disk" in done.out
    assert f" and {tmp_path / 'results'}, 1.0 GB free there" in done.out  # on the same disk as the caches


def test_a_sum_says_that_a_size_is_not_known() -> None:
    known, unknown = (downloads.Download("weights", size, ()) for size in (3 * 10**9, None))
    assert downloads.readable_total([known, unknown]) == "3.0 GB and 1 of unknown size"
    assert downloads.readable_total([unknown, unknown]) == "2 of unknown size"
    assert downloads.readable_total([]) == "none"
    assert downloads.total_size([known, unknown]) is None and downloads.total_size([]) == 0


def test_a_model_of_the_hub_is_named_once_and_as_by_a_run(call: Run) -> None:
    command = ("run", "--model", "7b", "--llm", "some/model", "--methods", "memvp")
    missing = [line for line in call(*command, "--dry-run").out.splitlines() if "some/model" in line]
    (refused,) = call(*command).err.splitlines()
    assert missing == [refused.replace("error: ", "missing: ", 1)]
    assert "hf download some/model" in refused and "licence: not stated" in refused


def test_what_a_method_refuses_is_named_beside_the_others(call: Run, base: list[str]) -> None:
    done = call(*base, "--methods", "memvp,dehvf", "--set", "dehvf.fuser_dim=7", "--dry-run")
    assert done.code == 2 and "missing: dehvf on " in done.out and "fuser_heads 4 do not divide fuser_dim 7" in done.out
    assert "| memvp" in done.out and "a short measurement" in done.out


def test_the_format_belongs_to_the_dry_run(call: Run, base: list[str]) -> None:
    done = call(*base, "--format", "json")
    assert done.code == 2 and "--format json: only --dry-run prints it" in done.err


def test_one_process_of_several_makes_the_dry_run(call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    done = call(*base, "--methods", "memvp", "--dry-run")
    assert (done.code, done.out) == (0, "")


def test_several_processes_share_the_samples_of_a_step(
    call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = call(*base, "--methods", "memvp", "--dry-run", "--format", "json")
    (row,) = _found(done)["runs"]
    assert (row["train"]["batch_size"], row["micro_batch"]) == (4, 2)


def test_a_dry_run_of_divided_layers_asks_for_the_micro_batch(
    call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", "RANK": "0", **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    command = (*base, "--methods", "oracle", "--dry-run")
    for more, code in (((), 2), (("--micro-batch", "2"), 0)):
        done = call(*command, *more)
        assert done.code == code and ("missing: --micro-batch: " in done.out) == (code == 2), done.out


def test_memory_that_runs_out_while_measuring_gives_no_time(
    call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*args: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(duration, "_repeated", too_large)
    done = call(*base, "--methods", "memvp", "--dry-run", "--format", "json")
    assert done.code == 0 and _found(done)["runs"][0]["step_s"] is None


def test_the_small_world_is_not_the_full_benchmark(call: Run) -> None:
    done = call("run", "--model", "tiny", "--full", "--dry-run")
    assert done.code == 2 and done.err.startswith("error: --full: the small world is not the full benchmark")


def test_too_many_steps_are_named_by_their_option(call: Run, base: list[str]) -> None:
    base[base.index("--steps") + 1] = "900000000"
    done = call(*base, "--methods", "memvp", "--dry-run")
    assert done.code == 2 and "--steps 900000000: these are" in done.out
