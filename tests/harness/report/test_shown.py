"""Boards in a terminal: what fits, what is left out, and how it is said."""

from pathlib import Path
from typing import Any

import pytest

from harness.commands.table import TableOptions, table_command_text
from harness.errors import UserError
from harness.records import write_record
from harness.report.timed import TimedFilter
from tests.record_factory import NINE, make, speed


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods on `tiny`."""
    for record in (make("memvp", value=50.0), make("dehvf", value=40.0)):
        write_record(record, tmp_path)
    return tmp_path


def _shown(results: Path, number: int = 1, width: int | None = 80, **options: Any) -> str:
    return table_command_text(TableOptions(results, number, width=width, **options))


def _head(text: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith("Method")).split()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_board_fits_its_terminal(results: Path, width: int) -> None:
    text = _shown(results, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "Avg" in _head(text) and "50.00" in text


def test_a_wider_terminal_shows_more_columns_and_wide_shows_all(results: Path) -> None:
    narrow, wider = _head(_shown(results, width=60)), _head(_shown(results, width=100))
    assert set(narrow) < set(wider)
    assert set(NINE) <= set(_head(_shown(results, width=60, wide=True)))
    left = next(line for line in _shown(results, width=60).splitlines() if "Not shown" in line)
    assert "the terminal is narrow" in left
    assert "is narrow" not in _shown(results, width=60, wide=True)


def test_rows_without_a_record_come_last_and_only_when_asked_for(results: Path) -> None:
    text = _shown(results)
    assert "Human" not in text and "LaVIN" not in text and "without a record" in text
    names = [line.split()[0] for line in _shown(results, everything=True).splitlines() if line]
    assert names.index("MemVP") < names.index("Human") and names.index("DEHVF") < names.index("Human")
    assert "without a record" not in _shown(results, everything=True).replace("\n", " ")


def test_without_any_record_it_says_so(tmp_path: Path) -> None:
    assert "No row has a record yet" in _shown(tmp_path)


def test_chosen_columns_in_every_output(results: Path) -> None:
    assert _head(_shown(results, columns=("img", "NAT")))[-2:] == ["IMG", "NAT"]
    piped = _shown(results, width=None, columns=("IMG",))
    assert "IMG" in piped and "Avg" not in piped
    with pytest.raises(UserError, match="--columns IMGG: table 1 has no such column; choose from: NAT"):
        _shown(results, columns=("IMGG",))


def test_chosen_columns_come_first_where_it_is_narrow(results: Path) -> None:
    head = _head(_shown(results, width=44, columns=("NAT", "SOC", "LAN", "G1-6")))
    assert {"NAT", "SOC", "LAN", "G1-6"} <= set(head) and "Trainable" not in head


def test_notes_speak_of_what_is_shown(tmp_path: Path) -> None:
    write_record(make("memvp", value=50.0, model="7b"), tmp_path)
    write_record(make("memvp", value=50.0), tmp_path)
    assert "the paper's value" not in _shown(tmp_path, model="tiny").replace("\n  ", " ")


def test_the_legend_explains_only_what_stands_in_the_table(results: Path) -> None:
    narrow, wide = _shown(results, width=44, columns=("NAT", "SOC", "LAN", "G1-6")), _shown(results, wide=True)
    assert "- Trainable: " not in narrow and "- Trainable: " in wide
    assert "n/a: " not in narrow + wide and "n/a: " in _shown(results, everything=True)
    assert "±" not in wide  # there is one seed
    piped = _shown(results, width=None, model="tiny")
    assert "- n/a: " in piped and "- Trainable: " in piped


def test_a_pipe_gets_the_full_text(results: Path) -> None:
    piped = _shown(results, width=None)
    assert "| Human" in piped and piped == _shown(results, format="markdown")


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    """The same two methods timed in two dtypes, which differ by a factor of ten."""
    for dtype, factor in (("float32", 10.0), ("bfloat16", 1.0)):
        for method in ("memvp", "dehvf"):
            record = speed(method, 0.5 * factor, 0.25 * factor)
            backbone = record.backbone.model_copy(update={"dtype": dtype})
            write_record(record.model_copy(update={"backbone": backbone}), tmp_path)
    return tmp_path


def test_timings_of_two_settings_are_two_tables(timed: Path) -> None:
    tables = _shown(timed, 2, 200).split("Table 2.")[1:]
    assert len(tables) == 2
    assert sum(text.count("- Trainable: ") for text in tables) == 1 and "- Measured on" not in "".join(tables)
    for text in tables:
        assert ("5.000" in text) == ("float32" in text) != ("0.500" in text)


def test_timings_are_filtered_in_a_terminal_and_in_a_pipe(timed: Path) -> None:
    for width in (200, None):
        text = _shown(timed, 2, width, timed=TimedFilter(dtype="float32"))
        assert "5.000" in text and "0.500" not in text
    with pytest.raises(UserError, match="--text-length: no timing of table 2 matches; there are: "):
        _shown(timed, 2, timed=TimedFilter(text_length=7))
    with pytest.raises(UserError, match="--dtype: table 1 is not about measured times"):
        _shown(timed, 1, timed=TimedFilter(dtype="float32"))
