"""Parameter counts: every count that the paper prints, the parts of a count, text and JSON."""

import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.params import ParameterRow, matches_printed, parameter_table, params_text
from harness.errors import UserError
from harness.report.paper import load_paper, method_names
from methods import registry
from tests.command_line import call

PRINTED = [row for row in load_paper().rows if row.method in method_names() and row.model and row.trainable]
ONLY_REFERENCE = "counted by the reference, unused"


@cache
def table(model: str) -> dict[tuple[str, str | None], ParameterRow]:
    return {(row["method"], row["variant"]): row for row in parameter_table(list(registry()), model)}


def test_every_method_of_the_paper_is_registered_and_counted():
    assert set(method_names()) <= set(registry())
    assert {row.model for row in PRINTED} == {"7b", "13b"}
    assert len(PRINTED) == 21


@pytest.mark.parametrize(
    "row", PRINTED, ids=lambda row: f"table{row.table}-{row.method}-{row.variant or 'itself'}-{row.model}"
)
def test_printed_count_is_reproduced(row):
    counted = table(row.model)[row.method, row.variant]
    assert matches_printed(counted["trainable"], row.trainable), counted["trainable"]
    assert counted["matches"] is True


@pytest.mark.parametrize(
    ("method", "variant", "model", "count"),
    [
        ("memvp", None, "7b", 3_879_040),
        ("memvp", None, "13b", 5_487_744),
        ("dehvf", None, "7b", 4_171_520),
        ("dehvf", "no_visual_prompts", "7b", 3_219_456),
        ("dehvf", "no_multi_features", "7b", 3_879_040),
        ("dehvf", "no_adaptive_weights", "7b", 3_879_040),
        ("dehvf", "shared_query", "7b", 4_154_944),
        ("lavin", None, "7b", 3_781_296),
        ("lavin", None, "13b", 5_390_080),
        ("llava_lora", None, "7b", 4_395_136),
        ("llama_adapter", None, "7b", 1_758_208),
    ],
)
def test_exact_count(method, variant, model, count):
    assert table(model)[method, variant]["trainable"] == count


def test_a_count_that_the_paper_does_not_print_is_null():
    row = table("7b")["dehvf", "learnable_tokens"]
    assert (row["paper"], row["matches"]) == (None, None)


@pytest.mark.parametrize("model", ["7b", "13b"])
def test_parts_sum_to_both_conventions(model):
    for row in table(model).values():
        counts = [(module["count"], module["status"]) for module in row["by_module"].values()]
        assert row["trainable"] == sum(count for count, _ in counts)
        assert row["trained"] == sum(count for count, status in counts if status != ONLY_REFERENCE)


def test_unused_parameters_are_shown_as_such():
    modules = table("7b")["memvp", None]["by_module"]
    assert modules["modality_embedding"] == {"count": 8192, "status": ONLY_REFERENCE}
    assert modules["vision_adapters.last"] == {"count": 24 * 1024, "status": ONLY_REFERENCE}
    assert modules["vision_adapters"] == {"count": 23 * 24 * 1024, "status": "trained"}


@given(st.integers(0, 10**10))
def test_a_count_matches_itself_when_printed_and_no_distant_count(count):
    printed = f"{(count + 5_000) // 10_000 / 100:.2f}M"
    assert matches_printed(count, printed)
    assert not matches_printed(count + 10_001, printed)


def test_halves_round_up_and_the_printed_precision_decides():
    assert matches_printed(4_165_000, "4.17M")
    assert not matches_printed(4_164_999, "4.17M")
    assert matches_printed(4_171_520, "4.2M")
    assert matches_printed(7_400_000_000, "7B")


def test_json_is_the_list_of_rows():
    rows = json.loads(params_text(["memvp"], "7b", format="json"))
    assert len(rows) == 1
    expected = {"method": "memvp", "variant": None, "model": "7b", "trainable": 3_879_040, "matches": True}
    assert expected.items() <= rows[0].items()
    assert rows[0]["paper"] == "3.88M" or rows[0]["paper"] == "3.9M"


def test_markdown_shows_the_printed_count_and_the_breakdown():
    text = params_text(["dehvf"], "7b")
    line = next(line for line in text.splitlines() if "keys_only" in line)
    assert "4,171,520" in line and "4.17M" in line and "yes" in line
    assert any("fuser.blocks" in line and "199,936" in line for line in text.splitlines())


def test_an_unknown_format_is_rejected():
    with pytest.raises(UserError, match="--format csv"):
        params_text(["memvp"], "7b", format="csv")


def test_an_unknown_model_is_rejected():
    with pytest.raises(UserError, match="--model 8b"):
        parameter_table(["memvp"], "8b")


def test_a_folder_is_counted_with_or_without_a_slash(small_llm, monkeypatch):
    monkeypatch.chdir(small_llm.parent)
    rows = [json.loads(params_text(("memvp",), model, "json")) for model in (str(small_llm), small_llm.name)]
    assert rows[0][0]["trainable"] == rows[1][0]["trainable"] > 0


@pytest.mark.parametrize("model", ["nowhere/model", "./nowhere", "nowhere.gguf", "vicuna"])
@pytest.mark.parametrize("command", ["params", "flops"])
def test_the_advice_on_a_model_names_only_options_that_there_are(command, model):
    done = call(command, "--model", model)
    assert done.code == 2 and done.err.count("\n") == 1
    assert "--llm" not in done.err and "--weights" not in done.err
