"""The page as a file: what it contains, and that text of records stays text. `test_browser.py` opens it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.page.boards import boards, table_rows
from harness.page.build import LARGEST, ordered, write_page
from harness.records import (
    StepMeasured,
    default_label,
    history_path,
    make_history,
    read_records,
    record_path,
    write_history,
)
from harness.report.tables import leaderboard
from tests.command_line import Run
from tests.harness.page.conftest import HOSTILE, keep, timing
from tests.harness.report.answered import save
from tests.record_factory import make, speed


class Elements(HTMLParser):
    """Collect the elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_command_writes_a_small_page(call: Run, results: Path, tmp_path: Path) -> None:
    done = call("report", "--results", results, "--out", tmp_path / "site")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'site' / 'index.html'} (")
    assert 1_000_000 < (tmp_path / "site" / "index.html").stat().st_size < LARGEST


def test_nothing_is_loaded_from_another_address(page: Path) -> None:
    elements = Elements(page)
    addresses = [a.get(name) or "" for _, a in elements.found for name in ("src", "href", "srcset", "action", "data")]
    assert {address[:1] for address in addresses if address} == {"#"}
    assert not elements.all("link") and not elements.all("iframe")
    policy = next(a["content"] or "" for a in elements.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';") and "unsafe-inline'; script-src 'sha256-" in policy
    assert "http" not in policy


def test_text_of_a_record_stays_text(page: Path) -> None:
    elements = Elements(page)
    assert len(elements.all("script")) == 5  # the data, three libraries, and the page's own
    assert not [a for _, a in elements.found for name in a if name.startswith("on")]
    assert "".join(elements.text).count(HOSTILE) >= 3  # a model, an error and a caption


def test_every_measured_value_opens_records_that_are_there(page: Path) -> None:
    elements = Elements(page)
    templates = {a.get("id") for a in elements.all("template")}
    opened = [a["href"] or "" for a in elements.all("a") if (a.get("href") or "").startswith("#runs=")]
    assert opened and len(templates) == 11
    assert {f"run-{name}" for link in opened for name in link.removeprefix("#runs=").split(",")} == templates


def test_measured_rows_come_first_with_the_papers_value_beside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    table = text[text.index('id="table-1"') : text.index('id="table-2"')]
    kinds = re.findall(r'<tr class="(measured|printed)">', table)
    assert kinds == sorted(kinds) and set(kinds) == {"measured", "printed"}
    assert re.search(r">93\.00</a>\s*<span class=\"paper\">paper 93\.07 \(-0\.07\)</span>", table)


def test_a_filter_offers_names_that_differ_in_case_only(tmp_path: Path) -> None:
    for model in ("small", "Small"):
        keep(make(model=model, data={"name": "scienceqa-mini"}), tmp_path)
    text = write_page(tmp_path, tmp_path / "site").read_text(encoding="utf-8")
    assert all(f'<option value="{model}">' in text for model in ("small", "Small"))


def test_the_record_of_a_run_has_the_remarks_on_it(tmp_path: Path) -> None:
    one, other = (keep(make("memvp", seed), tmp_path) for seed in (0, 1))
    remarks = [{"runs": [run.spec_hash], "text": f"<b> on seed {run.seed}"} for run in (one, other)]
    (tmp_path / "remarks.json").write_text(json.dumps({"remarks": remarks}))
    text = write_page(tmp_path, tmp_path / "site").read_text(encoding="utf-8")
    for run in (one, other):
        _, _, opened = text.partition(f'<template id="run-{run.spec_hash}">')
        assert opened.partition("</template>")[0].count("on seed") == 1
        assert f'<p class="remark">&lt;b&gt; on seed {run.seed}</p>' in opened.partition("</template>")[0]


def test_the_largest_numbers_of_a_record_leave_the_page_readable(tmp_path: Path) -> None:
    for seed in (0, 1):
        times = dict.fromkeys(("load", "data", "train_step_median", "train_step_p90", "train", "eval", "scoring"), 1e18)
        scores = {name: {"value": 1e9, "n": 1, "stderr": 1e9} for name in ("BLEU-4", "CIDEr")}
        changes = {"times_s": times, "energy_joules": {"train": 1e18}, "metrics": scores}
        run = keep(make("memvp", seed, task="coco", **changes), tmp_path)
        path = record_path(run, tmp_path)
        write_history(path, make_history(run.spec_hash, [StepMeasured(step, 1e39, 1e39, 1, 1.0) for step in (1, 2)]))
        section = {"phases": {"train": timing(1e18), "inference": timing(1e18)}, "loaded": False}
        keep(make("memvp", seed, kind="speed", metrics={}, speed=section, backbone={"weights": "random"}), tmp_path)
    text = write_page(tmp_path, tmp_path / "site").read_text(encoding="utf-8")
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data, parse_constant=pytest.fail)["losses"]


def test_a_folder_without_records_is_refused(call: Run, tmp_path: Path) -> None:
    done = call("report", "--results", tmp_path / "none", "--out", tmp_path / "site")
    assert (done.code, done.out) == (2, "")
    assert (
        done.err
        == f"error: --results {tmp_path / 'none'}: there is no record; make a run first, or name another folder\n"
    )
    assert not (tmp_path / "site").exists()


def test_an_image_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"not for the page")
    sample = {"image_id": "7", "image": "samples/../../secret.png", "caption": "c", "references": []}
    keep(
        make("lavin", task="coco", metrics={"CIDEr": {"value": 1.0, "n": 1, "stderr": 1.0}}, samples=[sample]),
        tmp_path / "r",
    )
    with pytest.raises(UserError, match=r"is not an image inside"):
        write_page(tmp_path / "r", tmp_path / "site")


def test_an_image_that_is_no_small_copy_is_refused(tmp_path: Path) -> None:
    sample = {"image_id": "7", "image": "samples/7.png", "caption": "c", "references": []}
    keep(make("lavin", task="coco", metrics={}, samples=[sample]), tmp_path)
    (tmp_path / "samples").mkdir()
    with (tmp_path / "samples" / "7.png").open("wb") as file:
        file.truncate(400 * 2**20)
    with pytest.raises(UserError, match=r"7\.png: cannot be read \(larger than 4 MiB\)"):
        write_page(tmp_path, tmp_path / "site")


def test_a_faulty_history_is_named(tmp_path: Path) -> None:
    path = history_path(record_path(keep(make(), tmp_path), tmp_path))
    path.write_text("{}")
    with pytest.raises(UserError, match=re.escape(str(path))):
        write_page(tmp_path, tmp_path / "site")


def test_amounts_are_sorted_by_their_numbers() -> None:
    rows = [("all", "1,506 (37.6 %)", "1,279 to 1,687", "24 layers"), ("IMG", "", "275.7 to 320.6", "7")]
    assert ordered(rows) == [
        [("all", None), ("1,506 (37.6 %)", "1506"), ("1,279 to 1,687", "1279"), ("24 layers", None)],
        [("IMG", None), ("", ""), ("275.7 to 320.6", "275.7"), ("7", None)],
    ]
    assert ordered([]) == []


def test_the_same_records_give_the_same_page(results: Path, page: Path, tmp_path: Path) -> None:
    assert write_page(results, tmp_path).read_bytes() == page.read_bytes()


def test_every_printed_row_is_there() -> None:
    rows, _ = table_rows([], 1)
    assert len(rows) == sum(row.is_printed for row in leaderboard([], 1).rows)


def test_the_overview_has_both_rows_of_one_name_and_model(tmp_path: Path) -> None:
    overview = boards([], tmp_path)[0]
    shown = {row.values[1].paper for row in overview.rows if row.facets["Method"] == "LLaVA"}
    assert {"90.92", "85.81"} <= shown


def test_no_board_has_rows_of_two_protocols(tmp_path: Path) -> None:
    published = {"method": {}, "train": {"protocol": "published"}}
    found = boards([make("memvp"), make("dehvf"), make("memvp", config=published)], tmp_path)
    shown = {board.name: [row.facets["Protocol"] for row in board.rows if row.measured] for board in found}
    assert {name: rows for name, rows in shown.items() if rows} == {
        "overview": ["uniform", "uniform"],
        "table-1": ["uniform", "uniform"],
        "table-4": ["uniform"],
        "overview-published": ["published"],
        "table-1-published": ["published"],
    }
    assert [board.title for board in found if board.name == "overview-published"] == [
        "Overview of all tasks (published protocol)"
    ]


def test_every_timed_setting_is_a_row_of_its_own() -> None:
    section = {"phases": {"train": timing(1.0), "inference": timing(1.0)}, "loaded": False}
    common = {"kind": "speed", "metrics": {}, "speed": section}
    times = [make("memvp", **common, backbone={"weights": "random", "dtype": d}) for d in ("float32", "bfloat16")]
    rows, _ = table_rows(times, 2)
    assert [run.backbone.dtype for row in rows for run in row.runs] == ["float32", "bfloat16"]


def test_a_note_names_the_boards_that_it_is_on_unless_it_is_on_all() -> None:
    runs = [make("memvp"), make("dehvf"), make("memvp", model="small"), make("memvp", model="small", status="failed")]
    _, notes = table_rows(runs, 1)
    failed = [note for note in notes if "left out: failed" in note]
    assert failed == ["small, protocol uniform: 1 run left out: failed."]
    _, alone = table_rows(runs[2:], 1)
    assert "1 run left out: failed." in alone


def test_the_bare_towers_are_explained_below_their_row(tmp_path: Path) -> None:
    board = next(b for b in boards([speed("frozen", 0.1, 0.2)], tmp_path) if b.name == "table-2")
    assert any(row.facets["Method"] == "bare towers (frozen)" for row in board.rows)
    assert any(note.startswith("bare towers (frozen): ") for note in board.notes)


def test_where_times_were_measured_is_not_noted_again() -> None:
    section = {"phases": {"train": timing(1.0), "inference": timing(1.0)}, "loaded": False}
    times = [make("memvp", kind="speed", metrics={}, speed=section, backbone={"weights": "random"})]
    assert not [note for note in table_rows(times, 2)[1] if "Measured on" in note]


def test_the_overview_shows_no_marks_of_the_tables(tmp_path: Path) -> None:
    """Each table ranks its own rows, and the overview has rows of several tables."""
    for method, variant, right in (("memvp", None, range(30)), ("dehvf", None, ()), ("dehvf", "keys_only", range(9))):
        for seed in range(3):
            save(tmp_path, method, seed, right, variant=variant, label=default_label(method, variant))
    details = {
        board.name: " ".join(value.detail for row in board.rows for value in row.values)
        for board in boards(read_records(tmp_path), tmp_path)
    }
    assert "best" in details["table-1"] and "best" not in details["overview"]
