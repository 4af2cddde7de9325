"""The records of a speed measurement, and where they appear in the results."""

from pathlib import Path

import pytest

from harness.cost.speed_report import write_records
from harness.records import Record, read_records
from harness.report.readme import results_readme
from harness.report.tables import leaderboard
from tests.harness.cost.small_speed import METHODS, with_load


def with_text_length(record, length):
    setting = record.speed.setting.model_copy(update={"text_length": length})
    return record.model_copy(update={"speed": record.speed.model_copy(update={"setting": setting})})


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


def test_a_stopped_measurement_replaces_no_complete_one(records, quiet, tmp_path):
    stopped = [one.model_copy(update={"status": "interrupted", "error": "interrupted"}) for one in quiet]
    assert not write_records(stopped, tmp_path) and not write_records(with_load(records, True), tmp_path)
    assert write_records(stopped, tmp_path) == stopped
    assert {one.status for one in read_records(tmp_path)} == {"completed"}


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
