"""results/README.md: the leaderboards and a guide to the fields of a record, generated so that they stay up to date."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from harness.config.recipe import PROTOCOLS
from harness.escape import markdown, text_table
from harness.files import write_atomic
from harness.records import Diagnostics, History, Questions, Record, read_records
from harness.report.breakdown import breakdown_text
from harness.report.finish import finished
from harness.report.paper import disagreements, layout, load_paper
from harness.report.render import render
from harness.report.searched import searched_text
from harness.report.selection import by_setting, where_measured
from harness.report.tables import leaderboard

_HEAD = """\
# Results

Each run has one JSON file, its record: `records/{task}/{model}/{label}/seed{seed}-{hash}.json`. The predictions of the
run are stored next to it (`….predictions.jsonl`), and so is its training from step to step (`….history.json`, see
[below](#fields-of-a-history)). A few questions and captions with small copies of their images are in `samples/`; copies
of COCO's photographs are under the licences of their photographers, and those of ScienceQA under CC BY-NC-SA 4.0
by its authors' page, but cc-by-sa-4.0 by its card on the hub. The values of the tables below come from the records. The
marks `best` and `a` and the table of picture questions also use the predictions. Numbers are in percent unless the
table says otherwise.

The harness generates this page; do not edit it. To update it:

```
python -m harness run               # train, score and record; runs that have a record are skipped
python -m harness table             # print a table; --table 1..4, --format markdown|latex|csv|json|html
python -m harness readme            # write this page
```
"""
_SEARCHED = """\
These are the runs that were made to choose each recipe. They are evaluated on the validation split and stored in
`search/`. No table above includes them. Each row names the settings in which the run differs from the recipe. The
standard error over questions is in brackets (se); a difference of this size may be chance.
"""
_DIAGNOSTICS = """\
A method may show numbers of its inside, such as the weights of its fuser. A run computes them on images of
the evaluation split, whose number it keeps with them beside its record, in `….diagnostics.json`. They are for people to
look at; no table is made from them. `harness.records.read_diagnostics` reads them.
"""
_QUESTIONS = """\
Runs on the same data share a few questions with copies of their images, in
`samples/{task}/{data set}-{hash}/questions.json`, for people to look at; no table is made from them. The answers of a
run are in its predictions. `harness.records.read_questions` reads them.
"""


def results_readme(records: Sequence[Record], results_dir: Path, searched: str = "", by_category: str = "") -> str:
    """Return the text of results/README.md: every table of every model that has records, then the field guide.

    Args:
        records: the records of the results folder.
        results_dir: the results folder, for the predictions.
        searched: text on the searches for recipes, see `harness.report.searched`; empty leaves the section out.
        by_category: text on the picture questions by category, see `harness.report.breakdown`; empty leaves the section
            out.
    """
    boards = list(_boards(records, results_dir))
    parts = [_HEAD, "## Leaderboards\n"]
    parts += boards or ["No completed run is recorded yet.\n"]
    parts += ["## Picture questions of the small world\n", by_category] if by_category else []
    parts += ["## What was searched\n", _SEARCHED, searched] if searched else []
    parts += ["## Fields of a record\n", record_guide(), "## Fields of a history\n", _history_guide()]
    parts += ["## Fields of diagnostics\n", _DIAGNOSTICS, _table(list(_fields(Diagnostics)), "Field", "Meaning")]
    parts += ["## Fields of kept questions\n", _QUESTIONS, _table(list(_fields(Questions)), "Field", "Meaning")]
    parts += ["## Where the paper disagrees\n", _disagreements()]
    return "\n".join(parts)


def write_readme(results_dir: Path) -> Path:
    """Write `results_dir/README.md` from the records there, atomically, and return its path.

    Raises:
        UserError: a record or a file of predictions has an error.
    """
    path = Path(results_dir) / "README.md"
    records = read_records(results_dir)
    by_category = breakdown_text(records, results_dir)
    write_atomic(path, results_readme(records, results_dir, searched_text(results_dir), by_category))
    return path


def _boards(records: Sequence[Record], results_dir: Path) -> Iterator[str]:
    models = sorted({record.model for record in records})
    for table, protocol, model in product(map(int, sorted(load_paper().tables)), PROTOCOLS, models):
        if protocol != "uniform" and not layout(table).has_protocol:
            continue
        for group in by_setting([record for record in records if record.model == model], table):
            board = finished(leaderboard(group, table, model, protocol), results_dir)
            if any(row.seeds for row in board.rows):
                where = f", {where_measured(group[0])}" if board.layout.setting == "device" else ""
                where += ", published protocol" if protocol == "published" else ""
                yield f"### {markdown(model)}: table {table}{markdown(where)}\n\n{render(board, 'markdown')}"


def record_guide() -> str:
    """Return what each field of a record means, as a table in Markdown."""
    head = (
        "Where a field is null and its description does not say why, the reason is in `missing` (field path -> reason) "
        "or in a `reason` next to it; for a run that did not complete, it is in `error`. The JSON schema is in "
        "`schema.json`.\n\n"
    )
    return head + _table(list(_fields(Record)), "Field", "Meaning")


def _history_guide() -> str:
    head = (
        "A history is kept for people to look at; no table is made from it. Runs that were recorded before histories "
        "were kept have none. `harness.records.read_history` reads it.\n\n"
    )
    return head + _table(list(_fields(History)), "Field", "Meaning")


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        yield f"`{prefix}{name}`", " ".join((field.description or "").split())
        section, key = _section(field.annotation)
        if section:
            yield from _fields(section, f"{prefix}{name}.{key}")


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the section in the type of a field, if any, and `*.` if the field is a list or dict of sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    for argument in get_args(annotation):
        section, key = _section(argument)
        if section:
            return section, "*." if getattr(annotation, "__origin__", None) in (dict, list) else key
    return None, ""


def _disagreements() -> str:
    rows = [(item.says, item.against, item.taken) for item in disagreements()]
    return _table(rows, "The paper says", "Against it", "Taken here")


def _table(rows: Sequence[tuple[str, ...]], *headers: str) -> str:
    return text_table(rows, headers) + "\n"
