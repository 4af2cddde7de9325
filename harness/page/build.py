"""Put the page together from the records of a results folder."""

import base64
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.escape import visible
from harness.files import write_atomic
from harness.page.answers import (
    AGREEMENT_HEADS,
    Answered,
    Asked,
    agreement_rows,
    answered,
    asked,
    captioned,
    disagreement_figure,
    kept_questions,
)
from harness.page.boards import FACETS, boards, row_names
from harness.page.checked import checked_tables
from harness.page.costs import figure_2, ratio_figures, settings, time_table
from harness.page.images import data_uris
from harness.page.inside import inside_figures
from harness.page.libraries import libraries, text_of
from harness.page.losses import loss_figures
from harness.page.runs import runs
from harness.page.scores import score_figures
from harness.records import Question, Record, read_records, remarks_about

LARGEST = 5_000_000
"""Size in bytes that a page should not exceed, so that it can be sent by mail and opens at once."""
_OWN = files("harness.page") / "templates"


def write_page(results_dir: Path, out: Path) -> Path:
    """Write `out/index.html` from the records in a folder, atomically, and return its path.

    Args:
        results_dir: the results folder.
        out: folder of the page.

    Raises:
        UserError: jinja2 is not installed, there is no record, or a record or a file beside it has an error.
    """
    records = read_records(results_dir)
    if not records:
        raise UserError(f"--results {results_dir}: there is no record; make a run first, or name another folder")
    path = out / "index.html"
    write_atomic(path, _render(_content(records, results_dir)))
    return path


def _content(records: Sequence[Record], results_dir: Path) -> dict[str, Any]:
    """Return everything that the template shows."""
    shown = runs(records, results_dir)
    groups = answered(records, results_dir)
    captions = captioned(records)
    figures = {
        "scores": score_figures(records, results_dir),
        "losses": loss_figures(shown, row_names(records)),
        "costs": [*ratio_figures(records, results_dir), figure_2()],
        "answers": [disagreement_figure(number, group) for number, group in enumerate(groups)],
    }
    questions = kept_questions(records, results_dir)
    inside = inside_figures(records, results_dir, questions)
    figures["inside"] = [item.figure for item in inside]
    pictures = [item.image for items in captions.values() for item in items]
    pictures += [question.image for kept in questions.values() for question in kept.values() if question.image]
    return {
        "boards": boards(records, results_dir),
        "facets": FACETS,
        "runs": shown,
        "figures": figures,
        "inside": inside,
        "agreement": [(group, agreement_rows(group), _asked(group, questions)) for group in groups],
        "agreement_heads": AGREEMENT_HEADS,
        "captions": captions,
        "timed": {
            where: (time_table(timed), remarks_about(timed, results_dir)) for where, timed in settings(records).items()
        },
        "checked": checked_tables(records, results_dir),
        "newest": max(record.created for record in records),
        "version": _version(),
        "libraries": libraries(),
        "data": {
            "figures": {f.name: {"data": f.data, "layout": f.layout} for part in figures.values() for f in part},
            "losses": {run.record.spec_hash: run.losses for run in shown if run.losses},
            "images": data_uris(pictures, results_dir),
            "samples": {item.figure.name: {"values": item.samples, "images": item.images} for item in inside},
        },
    }


def _asked(group: Answered, questions: Mapping[str, Mapping[str, Question]]) -> list[Asked]:
    """Return the kept questions of a group's data, with the answers."""
    run = next(iter(group.runs.values()))
    return asked(group, questions.get(run.spec_hash, {}))


def _render(content: dict[str, Any]) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UserError('the page needs jinja2; run pip install -e ".[report]" in the checkout') from error
    environment = Environment(
        loader=PackageLoader("harness.page"),
        autoescape=True,
        finalize=_printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # JavaScript cannot read a JSON with NaN or infinity, and the page would be empty.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    scripts = [text_of(library) for library in libraries() if library.name.endswith(".js")]
    scripts.append((_OWN / "page.js").read_text(encoding="utf-8"))
    styles = [text_of(library) for library in libraries() if library.name.endswith(".css")]
    styles.append((_OWN / "page.css").read_text(encoding="utf-8"))
    environment.filters["ordered"] = ordered
    return environment.get_template("page.html").render(
        **content, scripts=scripts, styles=styles, policy=_policy(scripts)
    )


def _printed(value: Any) -> Any:
    """Return what the template prints for a value, which jinja2 then escapes. Libraries are printed as they are."""
    return visible(value) if type(value) is str else value


_AMOUNT = re.compile(r"([+-]?[\d,]+(?:\.\d+)?)(?: ±| \(| to |$)")
"""A number that a cell begins with, alone or with a deviation, a share, or the end of an interval behind it."""


def ordered(rows: Sequence[Sequence[str]]) -> list[list[tuple[str, str | None]]]:
    """Return the cells of a table, each with the number that it is sorted by; None in columns of other text.

    Args:
        rows: the cells as text. An empty cell of a column of numbers is sorted by an empty text.
    """
    columns = []
    for column in zip(*rows, strict=True):
        numbers = [_AMOUNT.match(text) for text in column]
        are_numbers = any(numbers) and all(found or not text for found, text in zip(numbers, column, strict=True))
        columns.append([(found[1].replace(",", "") if found else "") if are_numbers else None for found in numbers])
    return [list(zip(row, orders, strict=True)) for row, orders in zip(rows, zip(*columns, strict=True), strict=True)]


def _policy(scripts: list[str]) -> str:
    """Return a content security policy: no address outside, and no script but these, whatever a record contains."""
    hashes = (base64.b64encode(sha256(script.encode()).digest()).decode("ascii") for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"


def _version() -> str:
    try:
        return version("peft-vl-bench")
    except PackageNotFoundError:
        return "not installed"
