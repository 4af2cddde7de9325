"""The paper against the records, cell by cell: which verdict a difference gets."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from harness.records import write_record
from harness.report.against_paper import Elsewhere, PaperCell, against_paper, against_paper_text
from tests.command_line import Done, call
from tests.latex import check_latex, compile_latex
from tests.record_factory import NINE, make

ROOT = Path(__file__).parents[3]


def cells(*records: Any, table: int = 1) -> dict[tuple[str, str | None, str], PaperCell]:
    return {(cell.name, cell.model, cell.column): cell for cell in against_paper(records, table)}


def table(results: Path, *options: str) -> Done:
    return call("table", "--paper", "--results", results, *options)


def test_seeds_say_how_much_chance_explains() -> None:
    runs = [make("memvp", seed=seed, value=value, model="7b") for seed, value in enumerate((92.8, 93.0, 93.2))]
    found = cells(*runs)
    avg = found["MemVP", "7b", "Avg"]
    # t with two degrees of freedom, times 0.2, times sqrt(1 + 1/3), and half of the last printed digit.
    assert avg.noise == pytest.approx(4.302653 * 0.2 * (4 / 3) ** 0.5 + 0.005, abs=1e-5)
    assert (avg.value, avg.paper, avg.seeds, avg.verdict) == (pytest.approx(93.0), 93.07, 3, "within noise")
    assert avg.difference == pytest.approx(-0.07)
    assert found["MemVP", "7b", "LAN"].verdict == "off"
    assert {cell.verdict for (name, *_), cell in found.items() if name != "MemVP"} == {"not run"}


def test_one_seed_is_never_off() -> None:
    """How much seeds vary is not known, so they may explain any difference."""
    near, far = (cells(make("memvp", value=value, model="7b"))["MemVP", "7b", "Avg"] for value in (91.0, 90.0))
    assert near.noise == pytest.approx(1.96 * 2**0.5 + 0.005)
    assert (near.verdict, far.verdict) == ("within noise", "noise unknown")
    unknown = {name: {"value": 91.0, "n": 10, "stderr": None, "reason": "not known"} for name in NINE}
    assert cells(make("memvp", model="7b", metrics=unknown))["MemVP", "7b", "Avg"].verdict == "noise unknown"


def test_a_run_on_another_backbone_is_no_measurement_of_the_printed_number() -> None:
    found = cells(make("memvp"), make("dehvf", status="failed"), make("dehvf", variant="keys_only"))
    cell = found["MemVP", "13b", "Avg"]
    assert (cell.verdict, cell.value, cell.difference) == ("other backbone", None, None)
    assert cell.others == {"tiny": Elsewhere(value=50.0, seeds=1)}
    assert found["DEHVF", "7b", "Avg"].verdict == "not run"
    ablations = cells(make("dehvf", variant="keys_only"), table=4)
    assert ablations["prompts in keys only", "7b", "IMG"].verdict == "other backbone"
    # A run that may enter no table is no measurement either.
    assert cells(make("memvp", data={"limit": 5}))["MemVP", "13b", "Avg"].verdict == "not run"
    assert cells(make("memvp", model="7b"))["MemVP", "7b", "Avg"].others == {}


def test_runs_on_other_data_do_not_count() -> None:
    other = make("memvp", model="7b", data={"split_sizes": {"train": 10, "val": 5, "test": 5}})
    assert cells(other)["MemVP", "7b", "Avg"].verdict == "not run"


def test_every_format_has_every_cell(tmp_path: Path) -> None:
    write_record(make("memvp", value=93.0, model="7b"), tmp_path)
    write_record(make("dehvf"), tmp_path)
    rows = json.loads(table(tmp_path, "--format", "json", "--model", "7b").out)
    assert len(rows) == 5 * 9 and {row["model"] for row in rows} == {"7b"}
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(table(tmp_path, "--format", "csv").out))][:9] == [
        "not run"
    ] * 9
    shown = table(tmp_path).out
    assert "within noise" in shown and "twenty is off by chance" in shown
    lines = [[cell.strip() for cell in line.split("|")] for line in shown.splitlines()]
    (avg,) = [cells for cells in lines if cells[1:4] == ["DEHVF", "7b", "Avg"]]
    assert avg[5:10] == ["50.00 (tiny)", "1", "n/a", "n/a", "other backbone"]
    (row,) = [row for row in rows if (row["name"], row["column"]) == ("DEHVF", "Avg")]
    assert row["others"] == {"tiny": {"value": 50.0, "seeds": 1}} and row["value"] is None
    assert "\\toprule" in table(tmp_path, "--format", "latex").out
    page = table(tmp_path, "--format", "html").out
    assert page.startswith("<!doctype html>") and "<h1>Table 1, paper against measured. " in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--table", "2"), "--paper: table 2 has times of the paper's machine, not scores; leave --paper out"),
        (("--model", "tiny"), "--model tiny: table 1 of the paper has no row for it; leave --model out"),
    ],
)
def test_what_has_no_printed_score_is_said(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = table(tmp_path, *options)
    assert done.code == 2 and message in done.err


def test_latex_would_compile(tmp_path: Path) -> None:
    write_record(make("memvp", model="7b", value=93.0), tmp_path)
    # All nine columns of five methods, and the heads of the first and of later pages.
    assert check_latex(against_paper_text(tmp_path, 1, "7b", "latex")) == 45 + 2


@pytest.mark.parametrize("table", [1, 3, 4])
def test_latex_of_the_committed_results_compiles(table: int, tmp_path: Path) -> None:
    text = against_paper_text(ROOT / "results", table, None, "latex")
    assert text.count(r"\caption{Paper against measured: ") == 1
    compile_latex(text, tmp_path)


def test_in_a_terminal_numbers_without_a_measurement_are_counted_only(tmp_path: Path) -> None:
    none = against_paper_text(tmp_path, 1, "7b", "markdown", measured_only=True)
    assert "|" not in none and none.endswith("\n45 printed numbers have no measurement. --all shows them.\n")
    write_record(make("memvp"), tmp_path)
    write_record(make("dehvf", model="7b", value=93.0), tmp_path)
    text = against_paper_text(tmp_path, 1, "7b", "markdown", measured_only=True)
    assert text.count("| MemVP") == text.count("50.00 (tiny)") == text.count("| DEHVF") == 9
    assert "| LaVIN" not in text
    assert text.endswith("\n- 27 printed numbers have no measurement. --all shows them.\n")


def test_answers_that_could_not_be_read_are_noted(tmp_path: Path) -> None:
    write_record(make("memvp", model="7b", parse_failures={"count": 30, "n": 1000}), tmp_path)
    write_record(make("dehvf", parse_failures={"count": 5, "n": 1000}), tmp_path)
    write_record(make("lavin", model="7b"), tmp_path)
    note = "\n- Answers that could not be read: memvp on 7b 3.00 %, dehvf on tiny 0.50 %; they count as wrong.\n"
    for fewer in (False, True):
        assert note in against_paper_text(tmp_path, 1, None, "markdown", measured_only=fewer)
    # Runs on another model are not shown where there are some on the paper's.
    write_record(make("memvp", parse_failures={"count": 70, "n": 1000}), tmp_path)
    assert "memvp on tiny" not in against_paper_text(tmp_path, 1, "7b", "markdown")


def test_what_holds_for_the_shown_runs_is_noted(tmp_path: Path) -> None:
    published = {"method": {}, "train": {"protocol": "published"}}
    write_record(make("memvp", model="7b", git={"commit": "a" * 40, "dirty": True}), tmp_path)
    write_record(make("memvp", model="7b", config=published), tmp_path)
    write_record(make("dehvf"), tmp_path)
    text = against_paper_text(tmp_path, 1, "7b", "markdown")
    assert "- 1 run left out: of the published protocol, which --protocol published shows.\n" in text
    assert "- 1 run from code with uncommitted changes or of an unknown commit.\n" in text
    assert (
        "- tiny is on the data set `scienceqa-mini` (3,600 / 500 / 1,000 samples), not on the official one.\n" in text
    )
    write_record(make("dehvf", model="7b"), tmp_path)
    assert "scienceqa-mini" not in against_paper_text(tmp_path, 1, "7b", "markdown")
