"""Joining results folders: everything arrives, and nothing is overwritten."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.records import (
    Question,
    Questions,
    Record,
    join,
    predictions_path,
    read_questions,
    read_records,
    spec_hash,
    write_predictions,
    write_questions,
    write_record,
)
from harness.records.beside import BESIDE
from tests.command_line import Run, files, quick_run
from tests.record_factory import fields


def make_record(seed: int, **changes: Any) -> Record:
    """Return a record of a run with this seed."""
    return Record(**fields(seed=seed, spec_hash=spec_hash({"seed": seed}), **changes))


def test_parts_of_a_sweep_join_into_the_whole(
    call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for number, part in enumerate(parts, 1):
        base = quick_run(small_llm, small_clip, mini_set, part)
        done = call(*base, "--methods", "dehvf,oracle", "--shard", f"{number}/2", "--jobs", "1")
        assert done.code == 0, done.err
    assert [len(read_records(part)) for part in parts] == [1, 1]
    merged = tmp_path / "all"
    done = call("results", "merge", *parts, "--results", merged, "--format", "json")
    assert done.code == 0 and len(json.loads(done.out)["added"]) == 2
    assert files(merged) == files(parts[0]) | files(parts[1])
    again = call("results", "merge", *parts, "--results", merged)
    assert again.code == 0 and "0 runs copied" in again.out and "2 were there already" in again.out
    third = call(*quick_run(small_llm, small_clip, mini_set, merged), "--methods", "dehvf", "--shard", "3/3")
    assert third.code == 0 and "fewer runs than parts" in third.out


def test_conflicts_are_listed_and_nothing_is_overwritten(call: Run, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mine, other = make_record(seed=0), make_record(seed=0)
    assert mine.run_id == other.run_id and mine.created != other.created
    path = write_record(mine, ours)
    write_predictions(path, [{"id": "1"}])
    write_predictions(write_record(other, theirs), [{"id": "2"}])
    write_record(make_record(seed=1), theirs)
    for qid, results in (("1", ours), ("2", theirs)):
        asked = Question(qid=qid, question="Which?", options=["a", "b"], gold=0)
        write_questions(mine.task, mine.data, results, Questions(questions=[asked]))
    before = path.read_bytes(), predictions_path(path).read_bytes()
    done = call("results", "merge", theirs, "--results", ours)
    assert done.code == 1
    assert f"conflict: {mine.run_id}: has the same metrics, and was made twice" in done.out
    assert (path.read_bytes(), predictions_path(path).read_bytes()) == before
    assert len(read_records(ours)) == 2
    kept = read_questions(mine.task, mine.data, ours)
    assert kept is not None and kept.questions[0].qid == "1"


def test_a_run_that_the_target_records_meanwhile_is_not_overwritten(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_record(make_record(seed=0), theirs)
    sweeps_own = make_record(seed=0)
    read = join.read_remarks

    def sweep_ends(folder: Path) -> list[Any]:
        if folder == theirs:  # what the target has is known by now
            monkeypatch.setattr(join, "_files_of_run", lambda *run: [write_record(sweeps_own, ours), *of_run(*run)][1:])
        return read(folder)

    of_run = join._files_of_run
    monkeypatch.setattr(join, "read_remarks", sweep_ends)
    done = call("results", "merge", theirs, "--results", ours)
    assert done.code == 1 and "has been recorded in" in done.out and "meanwhile" in done.out
    assert read_records(ours) == [sweeps_own]


def test_a_completed_run_takes_the_place_of_a_failed_one(call: Run, tmp_path: Path) -> None:
    good = make_record(seed=0)
    bad = make_record(seed=0, status="failed", error="out of luck")
    for name, first, second in (("a", good, bad), ("b", bad, good)):
        write_record(first, tmp_path / name / "target")
        write_record(second, tmp_path / name / "source")
        done = call("results", "merge", tmp_path / name / "source", "--results", tmp_path / name / "target")
        assert done.code == 0
        assert [record.status for record in read_records(tmp_path / name / "target")] == ["completed"]


def test_two_runs_of_one_spec_hash_do_not_join(call: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write_record(Record(**fields(seed=0)), target)
    write_record(Record(**fields(seed=1)), source)
    done = call("results", "merge", source, "--results", target)
    assert done.code == 2 and f"{source}: spec_hash: is that of " in done.err and done.err.count("\n") == 1
    assert len(read_records(target)) == 1


def test_nothing_of_a_failed_run_stays_beside_the_completed_one(call: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    path = write_record(make_record(seed=0, status="failed", error="out of luck"), target)
    run = path.relative_to(target / "records").with_suffix("")
    for suffix in BESIDE:
        path.with_suffix(suffix).write_text("old")
    for name in ("old", "both"):
        (target / "trackers" / run / name).mkdir(parents=True)
        (target / "trackers" / run / name / "log").write_text("old")
    write_predictions(write_record(make_record(seed=0), source), [{"qid": "1"}])
    (source / "trackers" / run / "both").mkdir(parents=True)
    (source / "trackers" / run / "both" / "log").write_text("new")
    assert call("results", "merge", source, "--results", target).code == 0
    assert files(target) == files(source)
    assert (target / "trackers" / run / "both" / "log").read_text() == "new"


@pytest.mark.parametrize(("field", "value"), [("schema_version", 2), ("config", {"lr": float("inf")})])
def test_a_record_of_the_target_that_cannot_be_read_is_not_overwritten(
    field: str, value: object, call: Run, tmp_path: Path
) -> None:
    path = write_record(make_record(seed=0), tmp_path / "target")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    before = path.read_bytes()
    for seed in (0, 1):
        write_record(make_record(seed=seed), tmp_path / "source")
    done = call("results", "merge", tmp_path / "source", "--results", tmp_path / "target")
    assert done.code == 2 and str(path) in done.err.splitlines()[-1], done
    assert path.read_bytes() == before and not read_records(tmp_path / "target")


def test_a_record_of_the_target_under_another_name_is_not_doubled(call: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path = write_record(make_record(seed=0, status="failed", error="out of luck"), target)
    path.rename(path.with_name("mine.json"))
    write_record(make_record(seed=0), tmp_path / "source")
    done = call("results", "merge", tmp_path / "source", "--results", target)
    assert done.code == 2 and f"is not at {path}; move it there" in done.err and done.err.count("\n") == 1
    path.with_name("mine.json").rename(path)
    assert call("results", "merge", tmp_path / "source", "--results", target).code == 0
    assert [record.status for record in read_records(target)] == ["completed"]


def test_a_source_is_checked_before_anything_is_copied(call: Run, tmp_path: Path) -> None:
    write_record(make_record(seed=0), tmp_path / "good")
    moved = write_record(make_record(seed=1), tmp_path / "moved")
    moved.rename(moved.with_name("seed1-0000000000000000.json"))
    for bad, message in (("moved", "move it there"), ("nowhere", "has no records")):
        done = call("results", "merge", tmp_path / "good", tmp_path / bad, "--results", tmp_path / "target")
        assert done.code == 2 and message in done.err and done.err.count("\n") == 1
        assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to nothing"])
def test_no_file_of_a_run_is_left_out_in_silence(kind: str, call: Run, tmp_path: Path) -> None:
    path = predictions_path(write_record(make_record(seed=0), tmp_path / "source"))
    {"a pipe": os.mkfifo, "a folder": os.mkdir, "a link to nothing": lambda name: os.symlink("nothing", name)}[kind](
        path
    )
    done = call("results", "merge", tmp_path / "source", "--results", tmp_path / "target")
    assert done.code == 2 and str(path) in done.err and done.err.count("\n") == 1
    assert not read_records(tmp_path / "target")


def test_an_adapter_that_cannot_be_copied_is_one_line(call: Run, tmp_path: Path) -> None:
    record = write_record(make_record(seed=0), tmp_path / "source")
    run = record.relative_to(tmp_path / "source" / "records").with_suffix("")
    (adapter := tmp_path / "source" / "adapters" / run).mkdir(parents=True)
    os.mkfifo(adapter / "adapter.safetensors")
    done = call("results", "merge", tmp_path / "source", "--results", tmp_path / "target")
    assert done.code == 2 and "adapter.safetensors" in done.err and done.err.count("\n") == 1


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A source with two runs, the second of which has a file of every kind; beside it lies a file of somebody else."""
    (tmp_path / "secret").write_text("secret")
    source = tmp_path / "source"
    write_record(make_record(seed=0), source)
    asked = Question(qid="1", question="Which?", options=["a", "b"], gold=0, image="samples/asked.png")
    shown = {"image_id": "1", "image": "samples/shown.png", "caption": "a", "references": []}
    record = make_record(seed=1, samples=[shown])
    path = write_record(record, source)
    write_predictions(path, [{"qid": "1"}])
    write_questions(record.task, record.data, source, Questions(questions=[asked]))
    run = path.relative_to(source / "records").with_suffix("")
    for name in ("samples/asked.png", "samples/shown.png", f"adapters/{run}/deep/x", f"trackers/{run}/x"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    return source


_EVERY_KIND = ("records/**/seed1-*.json", "**/*.predictions.jsonl", "**/questions.json", "**/asked.png", "**/shown.png")
_FOLDERS = ("adapters", "adapters/*/*/*/seed1-*", "adapters/**/deep", "trackers", "trackers/*/*/*/seed1-*", "records")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [*_EVERY_KIND, "adapters/**/x", "trackers/**/x"])
@pytest.mark.parametrize("to", ["/dev/zero", "outside", "itself", "nothing"])
def test_no_link_leads_out_of_a_source(pattern: str, to: str, full: Path, call: Run, tmp_path: Path) -> None:
    (path,) = full.glob(pattern)
    outside = path.replace(tmp_path / "outside")
    path.symlink_to({"outside": outside, "itself": path}.get(to, to))
    done = call("results", "merge", full, "--results", tmp_path / "target")
    assert done.code == 2 and str(path) in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("pattern", _FOLDERS)
def test_no_linked_folder_leads_out_of_a_source(pattern: str, full: Path, call: Run, tmp_path: Path) -> None:
    (path,) = full.glob(pattern)
    path.symlink_to(path.rename(tmp_path / "outside"))
    done = call("results", "merge", full, "--results", tmp_path / "target")
    assert done.code == 2 and str(path) in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "target").exists()


def test_a_linked_source_and_a_link_inside_it_are_followed(full: Path, call: Run, tmp_path: Path) -> None:
    (path,) = full.glob("adapters/**/x")
    path.symlink_to(path.rename(full / "elsewhere"))
    (tmp_path / "link").symlink_to(full)
    done = call("results", "merge", tmp_path / "link", "--results", tmp_path / "target")
    assert done.code == 0, done.err
    (full / "elsewhere").replace(path)
    assert files(tmp_path / "target") == files(full)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/2/3", "a/2", "-1/2"])
def test_a_faulty_shard_is_one_line(shard: str, call: Run) -> None:
    done = call("run", "--shard", shard)
    assert done.code == 2 and f"--shard {shard}: is not I/N" in done.err
