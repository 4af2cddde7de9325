"""The real command line: a small run is recorded and then verified."""

import json
from pathlib import Path

import pytest

from harness.records import Record, predictions_path, read_records, record_path, write_record
from tests.command_line import Done, call, files, quick_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Path:
    """A results folder with one run."""
    results = tmp_path_factory.mktemp("verify") / "results"
    done = call(*quick_run(small_llm, small_clip, mini_set, results), "--methods", "memvp")
    assert done.code == 0, done.err
    return results


@pytest.fixture
def parts(mini_set: Path, small_llm: Path, small_clip: Path) -> list[str]:
    """The options of `verify` that name the data and the backbone of the run."""
    return ["--data-root", str(mini_set), "--llm", str(small_llm), "--clip", f"local-dir:{small_clip}"]


def the_record(results: Path) -> tuple[Record, Path]:
    (record,) = read_records(results)
    return record, record_path(record, results)


def last_line(done: Done) -> str:
    return done.out.rstrip().splitlines()[-1]


def test_a_run_made_again_is_identical(made: Path, parts: list[str]) -> None:
    record, path = the_record(made)
    before = files(made)
    done = call("verify", path, *parts)
    assert (done.code, done.out) == (0, "identical: scores and losses are the same; all 12 answers are the same\n")
    assert "seconds to train and to answer" in done.err
    assert files(made) == before
    assert record.git.commit is None or record.git.commit[:12] not in done.out


def test_an_answer_that_was_changed_is_found(made: Path, parts: list[str], tmp_path: Path) -> None:
    record, _ = the_record(made)
    metrics = {name: {**metric.model_dump(), "value": metric.value} for name, metric in record.metrics.items()}
    value = metrics["Avg"]["value"]
    metrics["Avg"]["value"] = value + 30 if value < 50 else value - 30
    environment = record.environment.model_copy(update={"python": "3.0"})
    changed = Record.model_validate(record.model_dump() | {"metrics": metrics, "environment": environment})
    path = write_record(changed, tmp_path / "old")
    rows = [json.loads(line) for line in predictions_path(record_path(record, made)).read_text().splitlines()]
    rows[3]["choice"] = 4
    predictions_path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--into", tmp_path / "new", "--within", 29)
    done = call("verify", path, *parts, *options)
    assert done.code == 1
    assert "differs before the run: python" in done.out
    assert f"first answer that differs: qid {rows[3]['qid']}: choice: 4 in the record," in done.out
    assert "Avg differs by 30.00 points; the limit is 29.00" in done.out
    assert last_line(done) == "different: scores differ by up to 30.00 points; 1 of 12 answers differ"
    # The second run was kept, so it is not made a third time.
    again = call("verify", path, *parts, "--into", tmp_path / "new", "--within", 31, "--format", "json")
    assert (again.code, json.loads(again.out)["outcome"]) == (0, "within")
    assert "already recorded" in again.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [0, 1025, 50_000_000])
def test_a_record_of_threads_that_no_run_can_have_is_refused(
    threads: int, made: Path, parts: list[str], tmp_path: Path
) -> None:
    record, _ = the_record(made)
    environment = record.environment.model_copy(update={"threads": threads})
    path = write_record(record.model_copy(update={"environment": environment}), tmp_path)
    done = call("verify", path, *parts)
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"{path}: environment.threads: {threads:,} is not from 1 to 1,024; give --threads" in done.err


def test_a_run_on_other_data_is_not_made(made: Path, parts: list[str], tmp_path: Path) -> None:
    record, _ = the_record(made)
    data = record.data.model_copy(update={"data_hash": "f" * 64})
    path = write_record(record.model_copy(update={"data": data}), tmp_path)
    done = call("verify", path, *parts)
    assert done.code == 1 and f'data_hash: "{"f" * 57}' not in done.out
    assert "differs: data_hash: " in done.out
    reason = "the run cannot be made again, because what it starts from has changed"
    assert last_line(done) == f"different: {reason}"
    as_json = json.loads(call("verify", path, *parts, "--format", "json").out)
    assert (as_json["outcome"], as_json["reason"]) == ("different", reason)
    assert as_json["before"][0].startswith("data_hash: ")


def test_a_second_run_that_fails_is_different(made: Path, parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object) -> None:
        raise RuntimeError("no more \x1b[31mmemory")

    monkeypatch.setattr("harness.run.phases._Run.train_or_load", fails)
    _, path = the_record(made)
    done = call("verify", path, *parts)
    assert done.code == 1 and last_line(done).startswith("different: the run failed: RuntimeError")
    as_json = call("verify", path, *parts, "--format", "json")
    assert as_json.code == 1 and "\x1b" not in as_json.out
    assert json.loads(as_json.out)["reason"].startswith("the run failed: RuntimeError")


def test_what_cannot_be_verified_is_said(made: Path, parts: list[str], tmp_path: Path) -> None:
    record, path = the_record(made)
    failed = write_record(record.model_copy(update={"status": "failed", "error": "boom"}), tmp_path / "failed")
    unknown = {**record.config, "train": {"no_such_field": 1}}
    changed = record.model_dump(exclude={"config_hash", "run_id"}) | {"config": unknown}
    other = write_record(Record.model_validate(changed), tmp_path / "other")
    for arguments, message in (
        ((failed, *parts), "is a record of a run that failed; give that of a completed run with scores"),
        ((path, "--data-root", tmp_path), "they name tiny, but the record is of small-llm-small-clip"),
        ((path, *parts[2:]), "--data-root DIR: needed for small-llm"),
        ((path, *parts, "--into", made), "holds the record itself; give another folder"),
        ((other, *parts), "no_such_field"),
        ((tmp_path / "none.json", *parts), "cannot be read"),
    ):
        done = call("verify", *arguments)
        assert done.code == 2 and message in done.err, (message, done.err)
