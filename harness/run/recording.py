"""Writing the record of a run, and the files that belong to it."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.config.plan import RunPlan
from harness.errors import UserError, first_line
from harness.files import require_place, require_same_file_system, write_atomic
from harness.records import (
    Record,
    Sample,
    find_record,
    make_history,
    paths_beside,
    read_record,
    record_path,
    record_text,
    require_at_its_path,
    spec_hash,
    write_diagnostics,
    write_history,
    write_predictions,
)
from harness.run.outcome import Ending, Identity, Outcome, make_record
from harness.run.setup import Setup
from harness.run.workspace import Workspace
from harness.stopping import stop_held_back
from harness.tasks.samples import keep_questions, keep_samples


def write_run(setup: Setup, plan: RunPlan, outcome: Outcome, ending: Ending) -> Record:
    """Write samples, predictions, the adapter and, last, the record of a run that has ended.

    A part that cannot be written is named in the record, and the run has failed. A record that is not complete never
    replaces a complete one. It stays in the run's workspace, and so do its parts.

    Args:
        setup: what the run was made on.
        plan: the run.
        outcome: what it has measured.
        ending: how it ended.

    Returns:
        The record. If it could not be written itself, it says so, and the run has failed; what was trained and
        answered is still in the workspace.
    """
    work = setup.workspace(plan)
    begun = time.perf_counter()
    samples = _write_parts(setup, plan, outcome, work)
    outcome.write_s += time.perf_counter() - begun
    if ending.status != "interrupted" and outcome.problems:
        reasons = [*([] if ending.error is None else [ending.error]), *outcome.problems]
        ending = Ending("failed", "; ".join(reasons), ending.step)
    record = _record(setup, plan, outcome, ending, samples)
    try:
        before = find_record(setup.results_dir, work.spec_hash)
        work.free_reserve()
        _write_record(record, work)
        if record.status == "completed":
            work.end()
            _publish(record, setup.results_dir, work)
        elif before is None or before.status != "completed":
            _publish_parts(work.parts, record_path(record, setup.results_dir))
    except (UserError, OSError) as error:
        return unrecorded(setup, plan, f"{ending.status}, but its record was not written: {first_line(error)}")
    if record.status == "completed":
        work.remove()
    return record


def finish_publishing(setup: Setup, work: Workspace) -> None:
    """Publish what is left of a complete run whose process ended before it had published everything, if there is one.

    Args:
        setup: what the run was made on.
        work: the run's workspace, whose lock must be held.

    Raises:
        UserError: something cannot be read or moved.
    """
    if not work.publishing.exists():  # the record goes last, so everything else is where it belongs
        return
    try:
        with stop_held_back():
            _publish(read_record(work.publishing), setup.results_dir, work)
    except OSError as error:
        raise UserError(
            f"{work.folder}: complete, but it cannot be published ({first_line(error)}); mend that, or remove the "
            "folder to make the run again"
        ) from error


def unrecorded(setup: Setup, plan: RunPlan, error: str) -> Record:
    """Return the record of a failed run that cannot be written.

    Args:
        setup: what the run was made on.
        plan: the run.
        error: one line on why it failed and why there is no record.
    """
    return _record(setup, plan, Outcome(setup.data_s), Ending("failed", error), [])


def require_recordable(setup: Setup, plan: RunPlan) -> None:
    """Check that a record of a run can be made and written.

    A record that says nothing was done is made and read, and every folder that the run will write to is tried.

    Args:
        setup: what the run will be made on.
        plan: the run.

    Raises:
        UserError: one of the folders cannot be written, or is on another file system than the run's workspace, from
            which files are moved; or an earlier record of the run has a file name that is not its own.
        ValidationError: a value that identifies the run has no place in a record, which is a mistake of this code.
    """
    work = setup.workspace(plan)
    record_folder = (setup.results_dir / "records" / work.run).parent
    samples_folder = setup.results_dir / "samples" / setup.task.name
    for folder in (record_folder, work.final_adapter.parent, work.folder, samples_folder):
        require_place(folder)
    for folder in (record_folder, work.final_adapter.parent):
        require_same_file_system(work.folder, folder)
    if (before := find_record(setup.results_dir, work.spec_hash)) is not None:
        require_at_its_path(before, setup.results_dir)
    record = _record(setup, plan, Outcome(setup.data_s), Ending("interrupted", "not begun"), [])
    Record.model_validate_json(record.model_dump_json())


def _record(setup: Setup, plan: RunPlan, outcome: Outcome, ending: Ending, samples: Sequence[Sample]) -> Record:
    identity: Identity = {
        "spec_hash": spec_hash(setup.spec_of(plan)),
        "model": setup.spec.name,
        "task": setup.task.name,
        "data": setup.task.data(plan.recipe),
        "backbone": setup.backbone_info(),
    }
    return make_record(plan, outcome, ending, setup.machine.device, identity, samples, setup.processes)


def _write_parts(setup: Setup, plan: RunPlan, outcome: Outcome, work: Workspace) -> list[Sample]:
    """Write what belongs to the record into the workspace; note in the outcome what cannot be written."""
    # Answers from random weights mean nothing, so they are not kept.
    answered = None if setup.backbone_info().weights == "random" else outcome.evaluation
    samples: list[Sample] = []
    if answered is not None:
        with _part("samples", outcome):
            data = setup.task.data(plan.recipe)
            samples = keep_samples(answered.shown, setup.task.name, data, setup.results_dir)
            if plan.recipe.eval_split == "test":  # those of other splits stand in no table
                keep_questions(answered.questions, setup.task.name, data, setup.results_dir)
    path = work.new_parts()
    if answered is not None:
        with _part("predictions", outcome):
            write_predictions(path, answered.rows)
    if outcome.training.steps:
        with _part("history", outcome):
            write_history(path, make_history(work.spec_hash, outcome.training.steps, outcome.training.validations))
    if outcome.diagnostics is not None:
        with _part("diagnostics", outcome):
            write_diagnostics(path, outcome.diagnostics)
    return samples


def _write_record(record: Record, work: Workspace) -> None:
    """Write the record beside its parts. A part that the run does not have is an empty file."""
    write_atomic(work.parts, record_text(record))
    for part in paths_beside(work.parts):
        part.touch()


def _publish(record: Record, results_dir: Path, work: Workspace) -> None:
    """Move all that belongs to a complete run to where users find it.

    Another call goes on where the process of an earlier one was killed.
    """
    is_trained = record.kind == "train"
    if is_trained:
        work.publish_adapter()
    try:
        _publish_parts(work.publishing, record_path(record, results_dir))
    except OSError:
        if is_trained:
            work.withdraw_adapter()
        raise


def _publish_parts(new_record: Path, record: Path) -> None:
    """Move a record and its parts out of the workspace, in place of what an earlier run left there."""
    record.parent.mkdir(parents=True, exist_ok=True)
    for new, old in zip(paths_beside(new_record), paths_beside(record), strict=True):
        if not new.exists():
            continue  # a process that was killed had moved it
        if new.stat().st_size:
            os.replace(new, old)
        else:
            old.unlink(missing_ok=True)
            new.unlink()
    # The record comes last, so a run with a complete record has all its files.
    os.replace(new_record, record)


@contextmanager
def _part(name: str, outcome: Outcome) -> Iterator[None]:
    """Note in the outcome that a part cannot be written, and go on."""
    try:
        yield
    except (UserError, OSError) as error:
        outcome.problems.append(f"{name}: {first_line(error)}")
