"""The subcommand `plot`: the paper's figures for print, as files."""

from dataclasses import dataclass
from pathlib import Path

from harness.cost.figure2 import figure2
from harness.cost.figure2_plot import plot_figure2
from harness.errors import UserError
from harness.records import Diagnostics, Record, read_diagnostics, read_records, record_path
from harness.report.drawing import check_suffix
from harness.report.matrix_plot import plot_matrix

COMPUTED = "figure2"
"""The figure that is computed by formula. All others come from the diagnostics that runs keep."""


@dataclass(frozen=True)
class PlotOptions:
    """The options of `plot`, as its help describes them; of those that are None, every run is taken."""

    name: str
    out: Path
    results: Path
    method: str | None = None
    model: str | None = None
    task: str | None = None
    seed: int | None = None


def plot_text(options: PlotOptions) -> str:
    """Draw one figure into a file, and return what was drawn from what.

    Raises:
        UserError: there is no such figure, an option has no effect on it, its runs are of several methods, tasks or
            models, a record or a file beside it has an error, the file's suffix is unknown, or matplotlib is not
            installed.
    """
    check_suffix(options.out)
    if options.name == COMPUTED:
        for option in ("method", "model", "task", "seed"):
            if getattr(options, option) is not None:
                raise UserError(f"--{option}: {COMPUTED} is computed by formula, not from a run; leave it out")
        return f"{plot_figure2(figure2(), options.out)}: {options.name}, computed by formula"
    run, kept = _chosen(options, _kept(options))
    matrix = next(matrix for matrix in kept.matrices if matrix.name == options.name)
    about = f"{run.label}, {run.task} on {run.model}, seed {run.seed}, {kept.images:,} images"
    return f"{plot_matrix(matrix, about, options.out)}: {options.name} of {about}"


def _kept(options: PlotOptions) -> list[tuple[Record, Diagnostics]]:
    """Return the completed runs that the options leave, with their diagnostics."""
    found = []
    for run in read_records(options.results):
        asked = (
            (options.method, run.label),
            (options.model, run.model),
            (options.task, run.task),
            (options.seed, run.seed),
        )
        if run.status == "completed" and all(wanted in (None, own) for wanted, own in asked):
            kept = read_diagnostics(record_path(run, options.results))
            if kept is not None:
                found.append((run, kept))
    return found


def _chosen(options: PlotOptions, found: list[tuple[Record, Diagnostics]]) -> tuple[Record, Diagnostics]:
    """Return the run to draw: the lowest seed of the only method, task and model; of these, the newest run."""
    offered = sorted({COMPUTED, *(matrix.name for _, kept in found for matrix in kept.matrices)})
    having = [(run, kept) for run, kept in found if options.name in {matrix.name for matrix in kept.matrices}]
    if not having:
        raise UserError(
            f"plot {options.name}: no such figure, or no run in {options.results} keeps it; choose from "
            f"{', '.join(offered)}, or make a run of a method that shows its inside"
        )
    if options.method is None:  # an ablation is drawn only when it is asked for
        having = [(run, kept) for run, kept in having if run.variant is None] or having
    for option, values in (
        ("--method", {run.label for run, _ in having}),
        ("--task", {run.task for run, _ in having}),
        ("--model", {run.model for run, _ in having}),
    ):
        if len(values) > 1:
            raise UserError(f"plot {options.name}: several runs keep it; give {option}: {', '.join(sorted(values))}")
    return min(having, key=lambda one: (one[0].seed, -one[0].created.timestamp()))
