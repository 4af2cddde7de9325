"""Boards as text, in every format."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from pylatexenc.latexwalker import LatexWalkerParseError

from harness.errors import UserError
from harness.report.paper import paper_rows
from harness.report.render import FORMATS, render
from harness.report.tables import leaderboard, table_text
from tests.latex import check_latex, compile_latex
from tests.record_factory import NINE, make, speed


def test_json_contract():
    rows = json.loads(render(leaderboard([make(seed=s, value=50.0 + s) for s in (0, 1)], 1), "json"))
    ours = next(r for r in rows if r["method"] == "memvp" and r["model"] == "tiny")
    assert {k: ours[k] for k in ("table", "variant", "task", "trainable", "seeds")} == {
        "table": 1,
        "variant": None,
        "task": "scienceqa",
        "trainable": 3_879_040,
        "seeds": [0, 1],
    }
    assert list(ours["metrics"]) == NINE
    assert ours["metrics"]["IMG"] == {
        "value": 50.5,
        "std": pytest.approx(0.5**0.5),
        "n": 1000,
        "paper": None,
        "rank": None,
    }
    theirs = next(r for r in rows if r["method"] == "dehvf" and r["model"] == "13b")
    assert theirs["metrics"]["Avg"] == {"value": None, "std": None, "n": None, "paper": 94.19, "rank": None}
    assert theirs["trainable"] is None and theirs["seeds"] == []
    human = next(r for r in rows if r["name"] == "Human")
    assert human["method"] is None and human["metrics"]["NAT"]["paper"] == 90.23


def test_csv_keeps_integers_and_empties():
    rows = list(csv.DictReader(io.StringIO(render(leaderboard([make()], 1), "csv"))))
    ours = next(r for r in rows if r["method"] == "memvp" and r["model"] == "tiny")
    assert (ours["trainable"], ours["IMG"], ours["IMG_std"], ours["IMG_n"]) == ("3879040", "50.0", "", "1000")
    assert len(rows) == len(paper_rows(1)) + 7


@pytest.mark.parametrize("table", [1, 2, 3, 4])
@pytest.mark.parametrize("format", FORMATS)
def test_every_table_in_every_format_without_records(table, format, tmp_path):
    text = table_text(tmp_path, table, None, format)
    assert text.endswith("\n") and "DEHVF" in text
    printed = {1: "94.19", 2: "1.35", 3: "128.9", 4: "92.88"}[table]
    assert printed in text
    if format == "markdown":
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(paper_rows(table))
        assert len({line.count("|") for line in lines}) == 1
        assert "n/a" in text


def test_html_escapes_what_a_record_brings():
    text = render(leaderboard([make(model="<script>alert(1)</script>")], 1), "html")
    assert "<script>" not in text


class _Reader(HTMLParser):
    """Collects the tags of a document and the text of its bold parts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bold: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "strong":
            self.bold.append(data)
            self.tags.append("#text")


def test_html_is_a_whole_document_with_the_best_value_bold():
    board = leaderboard([make("memvp", value=50.0), make("dehvf", value=40.0)], 1, "tiny")
    best = [
        replace(row, metrics={key: replace(cell, rank="best") for key, cell in row.metrics.items()})
        if row.method == "memvp"
        else row
        for row in board.rows
    ]
    text = render(replace(board, rows=tuple(best)), "html")
    assert text.startswith("<!doctype html>\n") and text.endswith("</html>\n") and '<meta charset="utf-8">' in text
    reader = _Reader()
    reader.feed(text)
    assert {"html", "head", "meta", "title", "style", "body", "h1", "table"} <= set(reader.tags)
    assert reader.bold == ["50.00"] * len(NINE)


@pytest.mark.parametrize(
    "wrong",
    [
        (r"\end{tabular}", ""),
        (r"\end{tabular}", r"\end{tabularx}"),
        (r"\caption{", r"\caption{{"),
        (r"\toprule", r"\toprule a_b"),
        (r"\midrule", r"\midrule & "),
        (r"\%", "%"),
    ],
)
def test_the_check_of_latex_finds_what_would_not_compile(wrong):
    text = render(leaderboard([make()], 1), "latex")
    assert check_latex(text) > 1 and wrong[0] in text
    with pytest.raises((AssertionError, LatexWalkerParseError)):
        check_latex(text.replace(*wrong, 1))


def _latex(table):
    return render(leaderboard([make(seed=s, value=50.0 + s, model="a_b & 5 % of #1") for s in (0, 1)], table), "latex")


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_latex_is_a_float_with_caption_and_label(table):
    text = _latex(table)
    for part in (
        r"\begin{table*}",
        r"\toprule",
        r"\bottomrule",
        rf". Table {table} of the paper}}",
        r"\label{tab:table",
        r"\end{table*}",
    ):
        assert text.count(part) == 1
    assert "±" not in text.partition(r"\end{table*}")[0]
    assert check_latex(text) > 1


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_latex_compiles(table, tmp_path):
    compile_latex(_latex(table), tmp_path)


def test_hostile_names_compile(tmp_path):
    name = 'a_b & 5 % of #1 ~^ \\input{/etc/passwd} $x$ {é} <|> "Größe" « 数 ≤ → ^^41 -- `x\''
    records = [make(model=name), make("dehvf", model="7b", backbone=make().backbone.model_dump() | {"llm": name})]
    text = render(leaderboard(records, 1), "latex")
    assert r"\textbackslash{}input\{/etc/passwd\}" in text and "U+6570" in text
    compile_latex(text, tmp_path)


def test_an_unknown_table_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--table 5"):
        table_text(tmp_path, 5, None, "markdown")


def test_an_unknown_format_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--format yaml"):
        table_text(tmp_path, 1, None, "yaml")


def test_ratios_and_bare_towers_are_explained_where_they_stand() -> None:
    with_both = render(leaderboard([speed("memvp", 0.1, 0.2), speed("frozen", 0.3, 0.2)], 2, "7b"), "markdown")
    (row,) = (line for line in with_both.splitlines() if line.startswith("| bare towers (frozen)"))
    assert " 3.00 " in row
    assert "- bare towers (frozen): the frozen backbone without a method. In training it does more than" in with_both
    assert "- train / MemVP, inference / MemVP: where both were timed in turn, the median of" in with_both
    assert "- The paper prints no ratios: " in with_both
    without = render(leaderboard([], 2, "bench"), "markdown")
    assert "bare towers" not in without and "The paper prints no ratios" not in without
    assert "the median of the ratios" not in render(leaderboard([make()], 1), "markdown")


def test_two_tables_of_one_number_have_two_labels() -> None:
    records = [make(), make(model="some/long name")]
    texts = [render(leaderboard(records, 1, model), "latex") for model in (None, "tiny", "some/long name")]
    labels = [text.partition(r"\label{")[2].partition("}")[0] for text in texts]
    assert labels == ["tab:table1-uniform", "tab:table1-uniform-tiny", "tab:table1-uniform-some-long-name"]
