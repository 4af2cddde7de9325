"""The records of a speed measurement, their text, and where they appear in the results."""

import json
import re
from pathlib import Path

import pytest

from harness.cost.goals import Verdict, parse_goal
from harness.cost.speed_report import report_text, write_records
from harness.errors import UserError
from harness.records import Record, Spread, read_records
from harness.report.readme import results_readme
from harness.report.tables import leaderboard
from tests.harness.cost.small_speed import METHODS


def with_load(records, loaded):
    return [one.model_copy(update={"speed": one.speed.model_copy(update={"loaded": loaded})}) for one in records]


def with_text_length(record, length):
    setting = record.speed.setting.model_copy(update={"text_length": length})
    return record.model_copy(update={"speed": record.speed.model_copy(update={"setting": setting})})


@pytest.fixture(scope="module")
def quiet(records):
    return with_load(records, False)


# Records


def test_there_is_one_record_per_contestant(records):
    assert len(records) == len(METHODS) + 3


def test_records_are_those_of_a_speed_measurement_with_random_weights(records):
    for record in records:
        assert record.kind == "speed" and record.backbone.weights == "random" and not record.metrics
        assert record.speed.setting.text_length == 16 and record.speed.cpu_s_per_s > 0


def test_records_hold_the_timings(measured, records):
    for record, contestant in zip(records, measured[1].contestants, strict=True):
        assert record.speed.phases == measured[1].timings[contestant.key]


def test_written_records_are_read_back_equal(records, tmp_path):
    write_records(records, tmp_path)
    assert sorted(read_records(tmp_path), key=str) == sorted(records, key=str)


def test_a_record_without_clock_and_processes_is_of_the_wall_clock_of_one(records):
    values = records[0].model_dump(mode="json")
    del values["speed"]["clock"], values["speed"]["processes"], values["speed"]["phases"]["train"]["cpu_s"]
    speed = Record.model_validate(values).speed
    assert (speed.clock, speed.processes, speed.phases["train"].cpu_s) == ("wall", 1, None)


def test_a_loaded_machine_replaces_no_record_of_a_quiet_one(records, quiet, tmp_path):
    loaded = with_load(records, True)
    assert not write_records(loaded, tmp_path) and not write_records(quiet, tmp_path)
    assert write_records(loaded, tmp_path) == loaded
    assert not any(one.speed.loaded for one in read_records(tmp_path))


# Text


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


# The page of results and Table 2


@pytest.fixture(scope="module")
def page(quiet):
    """The page of results of two measurements that differ in the text length."""
    longer = [with_text_length(one, 32).model_copy(update={"spec_hash": one.spec_hash[::-1]}) for one in quiet]
    return results_readme([*quiet, *longer], Path("none"))


def test_the_page_of_results_has_a_board_for_each_setting(page):
    assert page.count("### tiny: table 2") == 2
    titles = "\n".join(line for line in page.splitlines() if line.startswith("### "))
    assert "(tiny: 16 text tokens, batch 2 in training and 2 in inference, 2 new tokens)" in titles
    assert "(tiny: 32 text tokens, batch 2 in training and 2 in inference" in titles


def test_the_page_of_results_says_that_table_2_has_no_plain_readings(page):
    left_out = {line for line in page.partition("## Fields of a record")[0].splitlines() if "left out" in line}
    assert left_out == {"- 2 runs left out: table 2 has no row for dehvf-plain, memvp-plain."}


def test_table_2_takes_the_shipped_forms_and_the_paired_ratios(quiet):
    rows = {row.method: row for row in leaderboard(quiet, 2, "tiny").rows}
    assert {row.variant for row in leaderboard(quiet, 2, "tiny").rows} == {None} and set(METHODS) <= rows.keys()
    for record in quiet:
        if record.variant is None and record.method in METHODS:
            cells, phases = rows[record.method].metrics, record.speed.phases
            assert cells["train"].value == phases["train"].median_s
            assert cells["train_ratio"].value == phases["train"].ratio.median
            assert cells["inference_ratio"].value == phases["inference"].ratio.median


def test_table_2_says_what_was_measured(quiet):
    setting = "16 text tokens, batch 2 in training and 2"
    notes = leaderboard(quiet, 2, "tiny").notes
    assert any(note.startswith("Measured on ") and setting in note for note in notes)


def test_measurements_of_different_text_lengths_enter_no_common_table(quiet):
    other = with_text_length(quiet[1], 99)
    notes = leaderboard([*(one for one in quiet if one is not quiet[1]), other], 2, "tiny").notes
    assert any("1 run left out" in note for note in notes)
