"""Prepared commands within a time budget, and what is kept of them."""

import json
import sys

import pytest

from benchmarks.steps import FILE, GRACE_S, LOG, Step, run_steps
from harness.stopping import stop_on_signals
from tests.stopped_start import check_none_outlives_a_stop


def step(name, code, estimate_s=30.0, missing=None):
    return Step(name, estimate_s, [sys.executable, "-c", code, "{profile}"], missing)


def run(steps, out, budget_s=60.0):
    said = []
    outcomes = run_steps(steps, budget_s + GRACE_S, out, said.append)
    return {one.name: one for one in outcomes}, said


def test_a_failure_ends_no_other_step_and_the_log_says_why(tmp_path):
    found, _ = run([step("bad", "raise SystemExit('no such GPU')"), step("good", "print('measured')")], tmp_path)
    assert (found["bad"].status, found["good"].status) == ("failed", "done")
    assert found["bad"].reason == f"exit status 1; {LOG} has what it printed"
    assert all(text in (tmp_path / LOG).read_text() for text in ("## bad: ", "no such GPU", "measured"))


def test_what_does_not_fit_is_skipped_and_a_smaller_step_after_it_is_not(tmp_path):
    found, said = run([step("long", "", estimate_s=100), step("short", "")], tmp_path)
    assert found["long"].status == "skipped" and found["long"].reason == "takes about 100 s, and 60 s are left"
    assert found["short"].status == "done"
    assert said[0] == "long: skipped in 0 s takes about 100 s, and 60 s are left"


def test_what_the_project_cannot_do_yet_is_skipped_with_the_reason(tmp_path):
    found, _ = run([step("later", "", missing="there is no option --later")], tmp_path)
    assert (found["later"].status, found["later"].reason) == ("skipped", "there is no option --later")


@pytest.mark.parametrize(
    ("estimate_s", "budget_s", "why"),
    [(2.0, 3.0, "at the end of the budget, after 3 s"), (1.5, 60.0, "at 2 times its estimate, after 3 s")],
)
def test_a_step_that_takes_too_long_is_asked_to_end_and_what_it_wrote_then_is_kept(estimate_s, budget_s, why, tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): pathlib.Path(sys.argv[1]).write_text('[1]'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(60)"
    )
    found, _ = run([step("slow", code, estimate_s), step("next", "", 20.0)], tmp_path, budget_s)
    assert (found["slow"].status, found["slow"].profile) == ("stopped", [1]) and found["slow"].seconds < 10
    assert found["slow"].reason == why
    assert found["next"].status == ("skipped" if budget_s == 3.0 else "done")


def test_a_stop_while_a_step_is_being_started_ends_the_step(monkeypatch, tmp_path):
    check_none_outlives_a_stop(monkeypatch, lambda: run([step("slow", "import time; time.sleep(60)")], tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_what_a_step_had_measured_is_kept_where_all_are_stopped(tmp_path):
    code = (
        "import os, pathlib, signal, sys, time; pathlib.Path(sys.argv[1]).write_text('[1]'); "
        "os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        run([step("first", ""), step("second", code, 30.0), step("third", "")], tmp_path)
    first, second = json.loads((tmp_path / FILE).read_text())
    assert (first["status"], second["status"], second["profile"]) == ("done", "stopped", [1])
    assert second["reason"] == "together with all steps"


def test_the_results_are_written_after_every_step(tmp_path):
    seen = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(pathlib.Path({!r}).read_text())"
    found, _ = run([step("first", ""), step("second", seen.format(str(tmp_path / FILE)))], tmp_path)
    assert [one["name"] for one in found["second"].profile] == ["first"]
    assert [one["name"] for one in json.loads((tmp_path / FILE).read_text())] == ["first", "second"]


@pytest.mark.parametrize("record", ["{", '{"kind": "speed"}'])
def test_a_bad_record_fails_its_step_alone(record, tmp_path):
    code = (
        "import pathlib, sys; folder = pathlib.Path(sys.argv[2], 'records'); folder.mkdir(parents=True); "
        f"(folder / 'bad.json').write_text({record!r})"
    )
    bad = Step("bad", 30.0, [*step("bad", code).command, "{results}"])
    found, _ = run([bad, step("good", "")], tmp_path)
    assert (found["bad"].status, found["good"].status) == ("failed", "done") and "bad.json" in found["bad"].reason
