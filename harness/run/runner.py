"""One run, and its record: whatever happens to the run, the record says how it ended."""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from harness.config.plan import RunPlan
from harness.processes import TOGETHER, OutOfStepError, Processes
from harness.records import Record
from harness.run.outcome import Ending, Outcome
from harness.run.phases import measure
from harness.run.progress import Progress, Silent
from harness.run.recording import write_run
from harness.run.setup import Setup
from harness.stopping import Stopped, stop_held_back


def make_run(setup: Setup, plan: RunPlan, progress: Progress) -> Record:
    """Make one run and write its record, predictions and adapter.

    Args:
        setup: what the run is made on.
        plan: the run.
        progress: receives how far the run is.

    Returns:
        The record. Its status says whether the run failed. The traceback of an unexpected failure is printed.

    Raises:
        KeyboardInterrupt: a signal stopped the run, or nobody reads its output any more. The record is written.
        OutOfStepError: this process cannot go on together with the others. The record is written.
        UserError: the disk has no room for the record. The run has not begun.
    """
    # Hash the weights first: a second backbone next to the trained one might not fit into memory.
    setup.backbone_info()
    setup.workspace(plan).keep_reserve()
    outcome = Outcome(setup.data_s)
    is_launched = setup.processes.count > 1  # a launcher and a scheduler may both send a signal
    setup.processes.broadcast(plan)
    try:
        measure(setup, plan, outcome, progress)
    except BrokenPipeError as pipe:
        unread = Stopped(signal.SIGPIPE)
        write_run(setup, plan, outcome, _interrupted(unread))
        raise unread from pipe
    except KeyboardInterrupt as stop:
        write_run(setup, plan, outcome, _interrupted(stop))
        raise
    except OutOfStepError as end:
        assert end.__cause__ is not None, "the cause says why"
        with stop_held_back(once=is_launched):
            write_run(setup, plan, outcome, Ending("failed", f"{Ending.of(end.__cause__).error}; {TOGETHER}"))
        raise
    except Exception as failure:
        # A failure of one run, or too little memory for it, must not stop the others. A launcher that finds one
        # process dead stops the others at once, so a stop may come now; the record is written first.
        with stop_held_back(once=is_launched):
            return write_run(setup, plan, outcome, Ending.of(failure))
    else:
        with stop_held_back(once=is_launched):
            return write_run(setup, plan, outcome, Ending())
    finally:
        # A wrapped backbone contains reference cycles, and the next run loads a backbone of its own.
        gc.collect()
        torch.cuda.empty_cache()


def _interrupted(stop: KeyboardInterrupt) -> Ending:
    """Return the end of a run that was stopped."""
    if not isinstance(stop, Stopped):
        return Ending("interrupted", "interrupted by the user")
    why = ": nobody reads the output any more" if stop.signum == signal.SIGPIPE else f" by {stop}"
    return Ending("interrupted", f"interrupted{why}")


@contextmanager
def announced_end(processes: Processes) -> Iterator[None]:
    """Tell the processes that follow this one that no further run comes, when the context is left.

    A stop reaches all of them, so then there is nothing to tell.

    Args:
        processes: those that make the runs together; this one is the first.
    """
    try:
        yield
    except Exception:
        processes.broadcast(None)
        raise
    processes.broadcast(None)


def follow(setup: Setup) -> None:
    """Make each run that the first process announces, together with it, until it announces the end.

    The first process alone writes files. If a run fails here, the first process learns the reason and records it.

    Args:
        setup: what the runs are made on.

    Raises:
        KeyboardInterrupt: the run was stopped, by a signal or because nobody reads the output any more.
    """
    ended: RunPlan | None = None
    while (plan := setup.processes.broadcast(ended)) is not None:
        outcome = Outcome(setup.data_s)
        with suppress(Exception):
            measure(setup, plan, outcome, Silent())
        del outcome
        gc.collect()
        torch.cuda.empty_cache()


def record_failure(setup: Setup, plan: RunPlan, error: str) -> Record:
    """Record that a run failed in another process, which could not write the record itself.

    Args:
        setup: what the run is made on.
        plan: the run.
        error: one line on why it failed.
    """
    return write_run(setup, plan, Outcome(setup.data_s), Ending("failed", error))
