"""Figures of what methods show of their inside: the diagnostics beside the records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.escape import html
from harness.page.boards import full_name, scored
from harness.page.figures import PageFigure
from harness.records import DiagnosticMatrix, Diagnostics, Question, Record, read_diagnostics, record_path


@dataclass(frozen=True)
class Inside:
    """One figure, and the samples whose own values it can show.

    Attributes:
        figure: the means.
        samples: id of the sample -> its values; None for zero.
        images: id of the sample -> path of the copy of its image.
        questions: id of the sample -> what is asked, as text; empty for an image with captions.
    """

    figure: PageFigure
    samples: Mapping[str, list[list[float | None]]]
    images: Mapping[str, str]
    questions: Mapping[str, str]


def inside_figures(
    records: Sequence[Record], results_dir: Path, questions: Mapping[str, Mapping[str, Question]]
) -> list[Inside]:
    """Return one figure for each matrix of each method in a table; of several seeds, the lowest is shown.

    Args:
        records: the records.
        results_dir: their folder.
        questions: spec hash of a run -> kept questions of its data by id.

    Raises:
        UserError: a file of diagnostics has an error.
    """
    found: list[Inside] = []
    for task, group in scored(records):
        for run in sorted(group.runs, key=lambda run: run.seed):
            kept = read_diagnostics(record_path(run, results_dir))
            if kept is not None:
                title = f"{full_name(group)}, {task} on {run.model}, seed {run.seed}"
                asked = questions.get(run.spec_hash, {})
                found += [_inside(len(found) + n, title, run, kept, m, asked) for n, m in enumerate(kept.matrices)]
                break
    return found


def _inside(
    number: int,
    title: str,
    run: Record,
    kept: Diagnostics,
    matrix: DiagnosticMatrix,
    asked: Mapping[str, Question],
) -> Inside:
    rows = [
        (label, *(f"{value:.3f}" for value in line)) for label, line in zip(matrix.row_labels, matrix.mean, strict=True)
    ]
    # plotly takes tags in its texts for formatting and links.
    down, across = html(matrix.rows), html(matrix.columns)
    figure = PageFigure(
        f"inside-{number}",
        f"{matrix.title}: {title}",
        f"{matrix.about} The means are over {kept.images:,} images of the evaluation split. A value of exactly zero "
        "is left empty.",
        [
            {
                "type": "heatmap",
                "x": [html(label) for label in matrix.column_labels],
                "y": [html(label) for label in matrix.row_labels],
                "z": _shown(matrix.mean),
                "texttemplate": "%{z:.2f}",
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": "share"}, "thickness": 12},
                "hovertemplate": f"{down} %{{y}}, {across} %{{x}}: %{{z:.3f}}<extra></extra>",
            }
        ],
        {
            "xaxis": {"type": "category", "showgrid": False, "title": {"text": across}},
            "yaxis": {
                "type": "category",
                "showgrid": False,
                "title": {"text": down},
                "autorange": "reversed",
            },
        },
        (matrix.rows, *matrix.column_labels),
        tuple(rows),
    )
    images = {sample.image_id: sample.image for sample in run.samples}
    images |= {qid: question.image for qid, question in asked.items() if question.image is not None}
    texts = {qid: question.question for qid, question in asked.items()}
    return Inside(figure, {name: _shown(values) for name, values in matrix.samples.items()}, images, texts)


def _shown(values: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Return a matrix with None for each zero: most often, the method does not look there at all."""
    return [[value or None for value in line] for line in values]
