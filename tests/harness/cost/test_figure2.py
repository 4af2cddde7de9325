"""Figure 2: the formulas and the printed 6 %."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.figure2 import claim, figure2, figure2_text, text_block
from harness.errors import UserError
from harness.report.paper import cost_figure

FIGURE = cost_figure(2)


def point(series, length, tokens):
    (row,) = [row for row in figure2([length], [tokens]) if row["series"] == series]
    return row


def test_the_printed_six_percent_is_reproduced():
    ratios = claim()
    assert (ratios["text_length"], ratios["visual_tokens"], ratios["printed"]) == (32, 576, 0.06)
    assert f"{ratios['without_projector']:.1%}" == "5.3%"
    assert f"{ratios['with_projector']:.1%}" == "5.9%"
    assert ratios["without_projector"] < ratios["with_factored_projector"] < ratios["with_projector"]


def test_values_at_the_claims_point_by_hand():
    h, length, n, blocks = 4096, 32, 576, 32
    text = 24 * length * h**2 + 4 * length**2 * h
    memory = point(FIGURE.memory_space, length, n)
    assert memory["flops"] == blocks * (text + 4 * length * n * h)
    assert memory["flops_with_projector"] - memory["flops"] == 2 * blocks * 2 * n * 128 * (1024 + h)
    together = length + n
    assert point(FIGURE.input_space, length, n)["flops"] == blocks * (24 * together * h**2 + 4 * together**2 * h)


def test_every_text_length_and_both_series_are_there():
    rows = figure2()
    assert {row["text_length"] for row in rows} == {32, 64, 128, 256}
    assert {row["series"] for row in rows} == {"LLaVA-v1.5", "DEHVF"}
    assert len(rows) == 2 * 4 * len(FIGURE.visual_tokens)
    assert max(row["visual_tokens"] for row in rows) == 576


@given(st.integers(1, 512), st.integers(1, 1024))
def test_memory_grows_linearly_and_input_space_faster(length, tokens):
    def growth(series):
        none, some, twice = (point(series, length, k * tokens)["flops"] for k in (0, 1, 2))
        return some - none, twice - some

    first, second = growth(FIGURE.memory_space)
    assert first == second
    one, other = growth(FIGURE.input_space)
    assert other > one > first


@given(st.integers(1, 512))
def test_without_visual_tokens_both_cost_the_text(length):
    assert point(FIGURE.memory_space, length, 0)["flops"] == point(FIGURE.input_space, length, 0)["flops"]
    assert point(FIGURE.memory_space, length, 0)["flops"] == 32 * text_block(length, 4096)


def test_json_holds_the_rows_and_the_claim():
    assert json.loads(figure2_text("json")) == {"rows": figure2(), "claim": claim()}


def test_markdown_states_the_claim():
    text = figure2_text()
    assert "5.3% without the projector, 5.9% with it" in text and "the paper prints 6%" in text


def test_an_unknown_format_is_rejected():
    with pytest.raises(UserError, match="--format csv"):
        figure2_text("csv")
