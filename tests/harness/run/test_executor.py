"""Following the runs of an executor, and beginning a lost one again."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.locks import FOREVER
from harness.run import attempt as attempts
from harness.run.attempt import Attempt, Wanted, attempt
from harness.run.executor import TRIES, LostError, run_on_executor
from harness.run.messages import BEGIN, MessageFile
from harness.run.progress import SweepProgress
from harness.run.unit import Unit
from harness.run.workspace import Workspace
from harness.stopping import stop_on_signals


class Refusal(UserError):
    """A submission is refused."""


class ScriptedJob:
    """A job that has ended, with a result that was decided before. One without a result never ends."""

    def __init__(self, end: Attempt | UserError | LostError | None) -> None:
        self.end, self.cancelled = end, False

    def done(self) -> bool:
        return self.end is not None

    def result(self) -> Attempt | UserError:
        if isinstance(self.end, LostError):
            raise self.end
        assert self.end is not None, "it has not ended"
        return self.end

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class ScriptedExecutor:
    """An executor whose jobs end as a list says."""

    ends: list[Attempt | UserError | LostError | None]
    machine: Any = None
    threads: int = 1
    jobs: int | None = None
    submitted: list[Unit] = field(default_factory=list)
    made: list[ScriptedJob] = field(default_factory=list)
    stops: bool = False
    """Whether SIGINT comes while the last job is being submitted."""

    def open(self, say: Callable[[str], None]) -> None: ...

    def submit(self, unit: Unit) -> ScriptedJob:
        self.submitted.append(unit)
        end = self.ends.pop(0)
        if isinstance(end, Refusal):
            raise end
        self.made.append(ScriptedJob(end))
        if self.stops and not self.ends:
            signal.raise_signal(signal.SIGINT)
        return self.made[-1]

    def close(self) -> None: ...


@pytest.fixture
def failures() -> list[str]:
    """The errors of the runs that are recorded as failed."""
    return []


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> Callable[..., tuple[ScriptedExecutor, list[Attempt]]]:
    """Make one run, or more, on an executor whose jobs end as given."""
    monkeypatch.setattr("harness.run.executor.POLL_S", 0)
    monkeypatch.setattr("harness.run.executor.RETRY_S", 0)

    def made(
        *ends: Attempt | UserError | LostError, runs: int = 1, executor: ScriptedExecutor | None = None
    ) -> tuple[ScriptedExecutor, list[Attempt]]:
        executor, reported = executor or ScriptedExecutor(list(ends)), list[Attempt]()
        setup: Any = SimpleNamespace(
            results_dir=tmp_path,
            workspace=lambda plan: Workspace(tmp_path, Path("a", "b", "c", "seed0"), "0" * 12),
        )

        def record_failure(setup: Any, plan: Any, error: str) -> Any:
            failures.append(error)
            return SimpleNamespace(status="failed", error=error, metrics={})

        monkeypatch.setattr(attempts, "record_failure", record_failure)
        plan: Any = SimpleNamespace(name="a run")
        with SweepProgress(Console(quiet=True), 1) as shown:
            run_on_executor(
                executor,
                [Wanted(plan)] * runs,
                lambda: setup,
                setup,
                shown,
                lambda plan, result: reported.append(result),
            )
        return executor, reported

    return made


DONE = Attempt(record=SimpleNamespace(), line="completed")  # type: ignore[arg-type]  # nobody reads the record


def test_a_lost_run_is_begun_again(follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]]) -> None:
    executor, reported = follow(LostError("gone", again=True), DONE)
    assert reported == [DONE] and executor.submitted[0] == executor.submitted[1]


def test_a_run_that_is_lost_each_time_has_failed(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(*[LostError("gone", again=True)] * TRIES)
    assert len(executor.submitted) == TRIES and [result.line for result in reported] == ["failed: gone"]


def test_a_run_whose_job_was_cancelled_is_not_begun_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(LostError("cancelled", again=False))
    assert len(executor.submitted) == 1 and reported[0].line == "failed: cancelled"


def recorded_at(created: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run have an incomplete record of its own."""
    own = SimpleNamespace(status="interrupted", error="interrupted by SIGTERM", metrics={}, created=created)
    monkeypatch.setattr(attempts, "find_record", lambda results_dir, spec_hash: own)


@pytest.mark.parametrize("ends", [[False], [True] * TRIES], ids=["cancelled", "lost each time"])
def test_a_record_of_the_lost_process_itself_stays(
    ends: list[bool],
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded_at(datetime.now(UTC) + timedelta(minutes=1), monkeypatch)  # while the job is being followed
    _, reported = follow(*[LostError("Ray has cancelled it", again=again) for again in ends])
    assert [result.line for result in reported] == ["interrupted: interrupted by SIGTERM"]


def test_a_record_from_before_the_lost_process_does_not_hide_its_end(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_at(datetime.now(UTC) - timedelta(minutes=1), monkeypatch)
    _, reported = follow(LostError("cancelled", again=False))
    assert [result.line for result in reported] == ["failed: cancelled"]


def test_a_run_that_another_process_makes_is_asked_for_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(Attempt(None, "being made by another process"), DONE)
    assert [unit.wanted.wait_s for unit in executor.submitted] == [0, FOREVER] and reported[-1] == DONE


def test_a_mistake_of_the_user_ends_the_sweep(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    with pytest.raises(UserError, match="no data there"):
        follow(UserError("no data there"))


def test_a_machine_that_refuses_a_run_does_not_end_those_of_the_others(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    _, reported = follow(DONE, UserError("the GPU is in use"), DONE, runs=3)
    assert [result.line for result in reported] == ["completed", "failed: the GPU is in use", "completed"]


def test_a_first_submission_that_is_refused_ends_the_sweep(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    with pytest.raises(UserError, match="no such partition"):
        follow(Refusal("no such partition"), DONE, runs=2)


def test_a_later_submission_that_is_refused_is_tried_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(DONE, Refusal("busy"), DONE, runs=2)
    assert reported == [DONE, DONE] and len(executor.submitted) == 3


def test_a_lost_run_whose_submission_is_refused_is_tried_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    _, reported = follow(LostError("gone", again=True), Refusal("busy"), DONE)
    assert reported == [DONE]


def test_a_run_that_is_refused_each_time_has_failed(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(DONE, *[Refusal("busy")] * TRIES, runs=2)
    assert [result.line for result in reported] == ["completed", "failed: busy"]
    assert len(executor.submitted) == 1 + TRIES


@pytest.mark.parametrize("ends", [[None], [LostError("gone", again=True), None]], ids=["first", "again"])
def test_a_stop_while_a_job_is_being_submitted_cancels_it(
    ends: list[Attempt | UserError | LostError | None],
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.run.executor.GRACE_S", 0)
    executor = ScriptedExecutor(list(ends), stops=True)
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        follow(executor=executor)
    assert executor.made[-1].cancelled


@pytest.mark.parametrize(
    ("begins", "own_record", "recorded"),
    [(True, False, ["cancelled, but its process did not end within 0 s"]), (True, True, []), (False, False, [])],
    ids=["killed", "recorded by its process", "not begun"],
)
def test_a_stopped_sweep_records_a_run_whose_process_is_killed(
    begins: bool,
    own_record: bool,
    recorded: list[str],
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
    failures: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.run.executor.GRACE_S", 0)
    if own_record:
        recorded_at(datetime.now(UTC) + timedelta(minutes=1), monkeypatch)
    messages = [BEGIN] if begins else []
    monkeypatch.setattr(MessageFile, "read", lambda self: [messages.pop()] if messages else [])

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.executor.time.sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        follow(None)
    assert failures == recorded


def test_a_second_try_sees_that_the_first_has_recorded_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    work = Workspace(tmp_path, Path("a", "b", "c", "seed0"), "0" * 12)
    setup: Any = SimpleNamespace(workspace=lambda plan: work)
    monkeypatch.setattr(attempts, "make_run", lambda setup, plan, progress: pytest.fail("made again"))
    monkeypatch.setattr(attempts, "completed", lambda setup, work: SimpleNamespace(created=new, run_id="its id"))
    plan: Any = SimpleNamespace(name="a run")
    again = attempt(setup, Wanted(plan, repeats=old), lambda: pytest.fail("begun again"))
    assert again.skipped and again.line == "recorded by another process as its id"
    assert not work.folder.exists()
