"""Writing the record of a run, and the files that belong to it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.config.plan import RunPlan
from harness.errors import UserError, first_line
from harness.files import write_atomic
from harness.records import (
    Record,
    Sample,
    diagnostics_path,
    find_record,
    history_path,
    make_history,
    predictions_path,
    spec_hash,
    write_diagnostics,
    write_history,
    write_predictions,
    write_record,
)
from harness.run.outcome import Ending, Identity, Outcome, make_record
from harness.run.setup import Setup
from harness.run.workspace import Workspace
from harness.tasks.samples import keep_questions, keep_samples


def write_run(setup: Setup, plan: RunPlan, outcome: Outcome, ending: Ending) -> Record:
    """Write samples, predictions, the adapter and, last, the record of a run that has ended.

    A part that cannot be written is named in the record, and the run has failed. A record that is not complete
    never replaces a complete one: it is written into the run's workspace.

    Args:
        setup: what the run was made on.
        plan: the run.
        outcome: what it has measured.
        ending: how it ended.

    Returns:
        The record.

    Raises:
        UserError: the record cannot be written.
    """
    work = setup.workspace(plan)
    before = find_record(setup.results_dir, work.spec_hash)
    replaces_better = ending.status != "completed" and before is not None and before.status == "completed"
    begun = time.perf_counter()
    samples = [] if replaces_better else _write_parts(setup, plan, outcome, ending, work)
    outcome.write_s += time.perf_counter() - begun
    if ending.status == "completed" and outcome.problems:
        ending = Ending("failed", "; ".join(outcome.problems))
    record = _record(setup, plan, outcome, ending, samples)
    if replaces_better:
        write_atomic(work.folder / "record.json", record.model_dump_json(indent=2) + "\n")
    else:
        # The record is written last, so a run with a complete record has all its files.
        write_record(record, setup.results_dir)
    if record.status == "completed":
        work.remove()
    return record


def require_recordable(setup: Setup, plan: RunPlan) -> None:
    """Check that a record of a run can be made, by making and reading one that says nothing was done.

    Args:
        setup: what the run will be made on.
        plan: the run.

    Raises:
        ValidationError: a value that identifies the run has no place in a record, which is a mistake of this code.
    """
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
    return make_record(plan, outcome, ending, setup.machine.device, identity, samples, setup.processes.count)


def _write_parts(setup: Setup, plan: RunPlan, outcome: Outcome, ending: Ending, work: Workspace) -> list[Sample]:
    """Write what belongs to the record; note in the outcome what cannot be written."""
    # Answers from random weights mean nothing, so they are not kept.
    answered = None if setup.backbone_info().weights == "random" else outcome.evaluation
    samples: list[Sample] = []
    if answered is not None:
        with _part("samples", outcome):
            data = setup.task.data(plan.recipe)
            samples = keep_samples(answered.shown, setup.task.name, data, setup.results_dir)
            if plan.recipe.eval_split == "test":  # those of other splits stand in no table
                keep_questions(answered.questions, setup.task.name, data, setup.results_dir)
    path = setup.results_dir / "records" / work.run.with_suffix(".json")
    with _part("history", outcome):
        if outcome.training.steps:
            training = outcome.training
            write_history(path, make_history(work.spec_hash, training.steps, training.validations))
        else:
            history_path(path).unlink(missing_ok=True)
    with _part("diagnostics", outcome):
        if outcome.diagnostics is not None:
            write_diagnostics(path, outcome.diagnostics)
        else:
            diagnostics_path(path).unlink(missing_ok=True)
    with _part("predictions", outcome):
        if answered is not None:
            write_predictions(path, answered.rows)
        else:
            predictions_path(path).unlink(missing_ok=True)
    if ending.status == "completed" and not plan.is_oracle and not outcome.problems:
        with _part("adapter", outcome):
            work.publish_adapter()
    return samples


@contextmanager
def _part(name: str, outcome: Outcome) -> Iterator[None]:
    """Note in the outcome that a part cannot be written, and go on."""
    try:
        yield
    except (UserError, OSError) as error:
        outcome.problems.append(f"{name}: {first_line(error)}")
