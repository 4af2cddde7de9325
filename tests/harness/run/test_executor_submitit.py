"""The executor for submitit, without processes of its own."""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from harness.stopping import stop_held_back, stop_on_signals
from tests.harness.run.executors import needs


@pytest.fixture
def happened() -> Iterator[list[str]]:
    """What happens, to which submitit's handler adds when it puts a run back into the queue."""
    found: list[str] = []

    def requeue(signum: int, frame: object) -> None:
        found.append("requeued")
        sys.exit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    yield found
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("signum", "end", "rest"),
    [(signal.SIGUSR2, SystemExit, ["requeued"]), (signal.SIGTERM, KeyboardInterrupt, [])],
    ids=["time over", "stopped"],
)
def test_a_run_whose_time_is_over_is_put_back_when_its_checkpoint_is_written(
    signum: signal.Signals, end: type[BaseException], rest: list[str], happened: list[str]
) -> None:
    needs("submitit")
    from harness.run.executor_submitit import Requeued

    def unit() -> None:
        with stop_on_signals(once=True):
            try:
                with stop_held_back():
                    signal.raise_signal(signum)
                    happened.append("step made")
            except KeyboardInterrupt:
                happened.append("checkpoint written")
                raise

    made: Any = unit
    with pytest.raises(end):
        Requeued(made)()
    assert happened == ["step made", "checkpoint written", *rest]
