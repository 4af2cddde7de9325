"""Folders of results: records, and what a page shows beside them."""

import io
import json
import random
from contextlib import redirect_stdout, suppress
from pathlib import Path

from tests.fuzz.kind import command, one_file
from tests.fuzz.mutations import mutate_value

_CONFIG = {
    "train": {"base_lr": 0.01, "betas": [0.9, 0.95], "tuning": "none", "warmup": None, "protocol": "uniform"},
    "method": {"memory_length": 8, "layers": [[0, 1], [2]], "scales": {"first": 1.0}},
}


def make_records(folder: Path) -> None:
    """Write records of every kind, one of them in a search."""
    from harness.records import write_predictions, write_record
    from tests.record_factory import make, speed

    runs = (make(name, config=_CONFIG) for name in ("memvp", "dehvf"))
    for record in (*runs, make("oracle", kind="oracle"), speed("lavin", 1, 1)):
        path = write_record(record, folder)
        write_predictions(path, [{"qid": "1", "choice": 0, "gold": 0}, {"qid": "2", "choice": None, "gold": 0}])
    write_record(make("memvp"), folder / "search")


def change_records(folder: Path, chance: random.Random) -> str:
    """Mutate one of the files, or the config of a record; then often renew what a record says of its own content."""
    if chance.random() < 0.6:
        name = one_file("*.json", "*.jsonl")(folder, chance)
    else:
        path = chance.choice(sorted((folder / "records").rglob("*.json")))
        content, name = json.loads(path.read_bytes()), f"config of {path.name}"
        for _ in range(chance.randint(1, 3)):
            mutate_value(content["config"], chance)
        path.write_text(json.dumps(content))
    if chance.random() < 0.75:
        for path in folder.rglob("*.json"):
            _renew(path)
    return name


def _renew(path: Path) -> None:
    """Correct the hash and the name in a record, at which nearly every change would be refused."""
    from harness.records import make_run_id, spec_hash

    with suppress(ValueError, TypeError, KeyError, RecursionError):  # it is no record any more
        content = json.loads(path.read_bytes())
        content["config_hash"] = spec_hash(content["config"])
        content["run_id"] = make_run_id(content)
        path.write_text(json.dumps(content))


def use_records(folder: Path) -> None:
    """Make every table, the audit, a comparison, the settings of each run, a data set and a joined folder."""
    for table in (1, 2, 3, 4):
        for format in ("markdown", "latex", "html", *(("csv", "json") if table == 1 else ())):
            command("table", "--table", table, "--format", format, "--results", folder)
    command("audit", "--results", folder)
    command("readme", "--results", folder)
    command("compare", "dehvf", "memvp", "--results", folder)
    for path in sorted((folder / "records" / "scienceqa" / "tiny").rglob("*.json")):
        _use_settings(path, folder / "run.toml")
    command("results", "push", "--repo", "me/results", "--dry-run", "--results", folder)
    command("results", "merge", folder, "--results", folder / "merged")


def _use_settings(record: Path, settings: Path) -> None:
    """Print the settings of a run, which are printable and are read back."""
    from harness.config.settings import read_settings
    from harness.escape import visible_lines

    with redirect_stdout(io.StringIO()) as printed:
        command("records", "config", record)
    text = printed.getvalue()
    assert visible_lines(text) == text, "a character acts on a terminal"
    settings.write_text(text, encoding="utf-8", newline="")
    read_settings(settings)


def make_page(folder: Path) -> None:
    """Write records with everything that a page shows beside them."""
    from tests.harness.page.conftest import fill

    fill(folder)


def use_page(folder: Path) -> None:
    """Make the page."""
    command("report", "--results", folder, "--out", folder / "site")
