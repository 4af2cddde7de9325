"""What becomes of a sweep whose worker processes cannot make their runs. The processes are scripted."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import UserError
from harness.run import jobs
from harness.run.attempt import Attempt, Wanted

DONE = Attempt(record=SimpleNamespace(), line="completed")  # type: ignore[arg-type]  # nobody reads the record


class ScriptedWorker:
    """A process that ends its runs as a list says, and after a UserError ends itself."""

    ends: list[Attempt | UserError]

    def __init__(self, make_setup: object, threads: int) -> None:
        self.connection, self.begun, self.makes_run = self, datetime.now(UTC), False
        self.process = SimpleNamespace(join=lambda timeout=None: None, is_alive=lambda: False, kill=lambda: None)
        self.wanted: Wanted | None = None
        self.is_over = False

    def give(self, wanted: Wanted, shown: object) -> None:
        assert not self.is_over, "its process has ended"
        self.wanted = wanted

    def receive(self) -> Attempt:
        end = self.ends.pop(0)
        if isinstance(end, UserError):
            self.is_over = True
            raise end
        self.wanted = None
        return end

    def end_run(self) -> None:
        self.wanted = None

    def stop(self, signum: int) -> None: ...


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make as many runs as ends are given, one after another, and return what is reported of them."""
    monkeypatch.setattr(jobs, "_Worker", ScriptedWorker)
    monkeypatch.setattr(jobs, "wait", lambda connections: connections)
    monkeypatch.setattr(
        jobs, "record_death", lambda setup, wanted, error, begun: Attempt(DONE.record, f"failed: {error}")
    )

    def made(*ends: Attempt | UserError) -> list[str]:
        monkeypatch.setattr(ScriptedWorker, "ends", list(ends), raising=False)
        unused: Any = None
        wanted, reported = Wanted(unused), list[str]()
        runs = [wanted] * len(ends)
        jobs.run_side_by_side(1, runs, unused, unused, 1, unused, lambda plan, result: reported.append(result.line))
        return reported

    return made


def test_what_no_process_can_load_ends_the_sweep(sweep: Callable[..., list[str]]) -> None:
    with pytest.raises(UserError, match="no data"):
        sweep(UserError("no data"), DONE)


def test_what_one_process_cannot_load_fails_its_run_alone(sweep: Callable[..., list[str]]) -> None:
    assert sweep(DONE, UserError("no data"), DONE) == ["completed", "failed: no data", "completed"]
