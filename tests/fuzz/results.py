"""Folders of results: records, and what a page shows beside them."""

from pathlib import Path

from tests.fuzz.kind import command


def make_records(folder: Path) -> None:
    """Write records of every kind, one of them in a search."""
    from harness.records import write_predictions, write_record
    from tests.record_factory import make, speed

    for record in (make("memvp"), make("dehvf"), make("oracle", kind="oracle"), speed("lavin", 1, 1)):
        path = write_record(record, folder)
        write_predictions(path, [{"qid": "1", "choice": 0, "gold": 0}, {"qid": "2", "choice": None, "gold": 0}])
    write_record(make("memvp"), folder / "search")


def use_records(folder: Path) -> None:
    """Make every table, the audit, a comparison and the page."""
    for table in (1, 2, 3, 4):
        for format in ("markdown", "latex", "csv", "json", "html"):
            command("table", "--table", table, "--format", format, "--results", folder)
    command("audit", "--results", folder)
    command("readme", "--results", folder)
    command("compare", "dehvf", "memvp", "--results", folder)


def make_page(folder: Path) -> None:
    """Write records with everything that a page shows beside them."""
    from tests.harness.page.conftest import fill

    fill(folder)


def use_page(folder: Path) -> None:
    """Make the page."""
    command("report", "--results", folder, "--out", folder / "site")
