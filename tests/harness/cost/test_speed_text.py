"""The report of a speed measurement as text and as JSON."""

import json
import re

import pytest

from harness.cost.goals import Verdict, parse_goal
from harness.cost.speed_text import report_text
from harness.errors import UserError
from harness.records import Spread
from harness.terminal import document
from tests.harness.cost.small_speed import with_load


def test_json_has_the_agreed_form(records):
    report = json.loads(report_text(records, "json"))
    assert {"device", "dtype", "preset", "rows"} <= report.keys()
    assert (report["dtype"], report["preset"]) == ("float32", "tiny")
    wanted = {
        "method",
        "phase",
        "implementation",
        "median_s",
        "p10_s",
        "p90_s",
        "ratio_to_baseline",
        "peak_memory_bytes",
    }
    assert all(wanted <= row.keys() for row in report["rows"])


def test_json_has_two_rows_per_contestant(records):
    report = json.loads(report_text(records, "json"))
    assert len(report["rows"]) == 2 * len(records)
    assert {row["implementation"] for row in report["rows"]} == {"shipped", "plain", "yardstick"}


def test_an_unknown_format_is_rejected(records):
    with pytest.raises(UserError, match="--format xml"):
        report_text(records, "xml")


def test_text_warns_of_a_loaded_machine(records, quiet):
    assert "enter no table" in report_text(with_load(records, True), "markdown")
    assert "enter no table" not in report_text(quiet, "markdown")


def test_text_says_which_times_are_divided_and_how_many_processes_there_were(quiet):
    speed = quiet[0].speed.model_copy(update={"clock": "cpu", "processes": 3})
    text = report_text([quiet[0].model_copy(update={"speed": speed})], "markdown")
    assert "divides two CPU times" in text and "2 rounds of 3 processes" in text


def test_text_has_the_goals_and_whether_they_are_met(quiet):
    ratio = Spread(median=1.02, p10=1.0, p90=1.2, ci_low=1.01, ci_high=1.04)
    text = report_text(quiet, "markdown", [Verdict(parse_goal("train:a/b=1.05"), ratio)])
    assert re.search(r"\| train:a/b +\| +1.020 \(1.010 to 1.040\) \[1.000, 1.200\] +\| +1.05 +\| met +\|", text)
    assert "Goals" not in report_text(quiet, "markdown")


def test_text_has_a_row_per_method(quiet):
    assert "| DEHVF" in report_text(quiet, "markdown")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_gets_whole_lines_and_hears_what_is_left_out(quiet, width):
    ratio = Spread(median=1.02, p10=1.0, p90=1.2, ci_low=1.01, ci_high=1.04)
    goal = Verdict(parse_goal("inference:llama_adapter/memvp-plain=1.05"), ratio)
    text = report_text(quiet, "markdown", [goal], width)
    assert "1.020 (1.010 to 1.040) |" in text
    lines = document(text, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if line.startswith("DEHVF")]
    assert rows and all(len(row) > 5 and row[1] in ("shipped", "plain") for row in rows)
    assert ("Not shown, because the terminal is narrow: " in text) == (width < 200)
    assert any("/ MemVP" in line for line in lines)
