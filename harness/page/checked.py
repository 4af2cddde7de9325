"""What the page shows of the paper: its values against measured ones, and the audit of its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.numbers import signed
from harness.page.boards import full_name, table_rows
from harness.records import Record, remarks_about
from harness.report.audit import audit_paper, audit_records
from harness.report.paper import disagreements, layout, load_paper
from harness.report.selection import hardware, where_measured


@dataclass(frozen=True)
class Table:
    """A plain table.

    Attributes:
        name: its id in the page.
        title: its heading.
        text: what it shows, in sentences.
        heads: headings of the columns.
        rows: its rows.
    """

    name: str
    title: str
    text: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def checked_tables(records: Sequence[Record], results_dir: Path) -> list[Table]:
    """Return the paper's values against measured ones, the audit, and the known disagreements.

    Args:
        records: the records.
        results_dir: their folder, for the remarks.

    Raises:
        UserError: the remarks have an error.
    """
    return [_against(records, results_dir), _audit(records), _disagreements()]


def _records_sentence(records: Sequence[Record]) -> str:
    """Return whether the accuracies of the records can be true, in a sentence."""
    found = audit_records(records)
    wrong = [name for name, row in found.items() if not row.agrees]
    if not wrong:
        return f"The accuracies of all {len(found):,} audited records are possible by arithmetic."
    return f"The accuracies of these records cannot be true: {', '.join(wrong)}."


_COMPARED = (
    "Every value that is both measured and printed. The paper prints no ratios of times: those here are quotients of "
    "its times."
)


def _against(records: Sequence[Record], results_dir: Path) -> Table:
    rows: list[tuple[str, ...]] = []
    shown: list[Record] = []
    for table in map(int, sorted(load_paper().tables)):
        columns = layout(table).columns
        for group in table_rows(records, table)[0]:
            for column in columns:
                cell, digits = group.metrics[column.key], column.digits
                run = group.runs[0] if group.runs else None
                if (
                    run is not None
                    and cell.value is not None
                    and cell.paper is not None
                    and cell.difference is not None
                ):
                    shown += group.runs
                    rows.append(
                        (
                            str(table),
                            full_name(group),
                            group.model or "",
                            run.protocol,
                            column.title,
                            f"{cell.value:.{digits}f}" + ("" if cell.std is None else f" ± {cell.std:.{digits}f}"),
                            f"{cell.paper:.{digits}f}",
                            signed(cell.difference, digits),
                            hardware(run) if run.speed is None else where_measured(run),
                        )
                    )
    text = (
        " ".join([_COMPARED, *remarks_about(shown, results_dir)])
        if rows
        else "No run on the paper's models, data and settings is recorded yet, so nothing can be compared."
    )
    heads = ("Table", "Row", "Model", "Protocol", "Column", "Measured", "Paper", "Difference", "Measured on")
    return Table("against", "The paper against what was measured", text, heads, tuple(rows))


def _audit(records: Sequence[Record]) -> Table:
    rows = []
    for item in audit_paper():
        impossible = [
            f"{name} {cell.value:.2f} ({cell.possible[0]:.2f} or {cell.possible[1]:.2f})"
            for name, cell in item.found.cells.items()
            if cell.right is None
        ]
        means = [f"{', '.join(mean.columns)}: {mean.mean:.2f} ({signed(mean.difference)})" for mean in item.found.means]
        rows.append(
            (
                str(item.row.table),
                item.row.name,
                item.row.llm or "-",
                "yes" if item.found.agrees else "no",
                "; ".join(impossible) or "-",
                "; ".join(means) or "-",
            )
        )
    return Table(
        "audit",
        "Audit of the printed and the recorded accuracies",
        "Is each printed accuracy a whole number of right answers out of the problems of its column? And do the "
        "columns that split all problems, weighted by their sizes, give the printed average (difference in brackets)? "
        + _records_sentence(records),
        ("Table", "Row", "LLM", "Possible", "Impossible accuracies", "Weighted means"),
        tuple(rows),
    )


def _disagreements() -> Table:
    return Table(
        "disagreements",
        "Where the paper contradicts itself or earlier work",
        "What the paper says, what is against it, and which reading this project takes.",
        ("Id", "The paper says", "Against it", "Taken here"),
        tuple((item.id, item.says, item.against, item.taken) for item in disagreements()),
    )
