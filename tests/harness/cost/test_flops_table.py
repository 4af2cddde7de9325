"""The FLOPs of methods as a table: how they grow with the visual tokens, what is counted, text and JSON."""

import json

import pytest

from harness.cost.flops import Workload
from harness.cost.flops_table import flops_table, flops_text
from harness.errors import UserError
from tests.command_line import call


def language_model_part(name, tokens):
    longer = {"memory_length": 2048} if name == "dehvf" else {}
    row = flops_table([name], "slice", visual_tokens=tokens, settings=longer)[0]
    return sum(sum(v.values()) for k, v in row["by_module"].items() if not k.startswith("clip"))


@pytest.mark.parametrize(("name", "quadratic"), [("dehvf", False), ("llava_lora", True)])
def test_memory_methods_grow_linearly_in_visual_tokens_and_input_space_methods_do_not(name, quadratic):
    few, some, many = (language_model_part(name, tokens) for tokens in (512, 1024, 1536))
    assert ((many - some) == (some - few)) is not quadratic


@pytest.fixture(scope="module")
def dehvf_by_tokens():
    """Rows of DEHVF on the 7B backbone with 64 and with 576 visual tokens."""
    return [
        flops_table(
            ["dehvf"],
            "7b",
            Workload(text_length=128),
            visual_tokens=tokens,
            settings={"memory_length": tokens + 16},
        )
        for tokens in (64, 576)
    ]


@pytest.mark.parametrize("phase", [0, 1])
def test_nine_times_the_visual_tokens_cost_the_language_model_under_a_tenth_more(phase, dehvf_by_tokens):
    few, many = (
        sum(
            sum(flops.values())
            for module, flops in rows[phase]["by_module"].items()
            if module.startswith(("llm", "memory"))
        )
        for rows in dehvf_by_tokens
    )
    assert few < many <= 1.1 * few


@pytest.mark.parametrize(("kept_bytes", "backward"), [(2**60, 2.0), (0, 3 - 1 / 16)])
def test_a_matrix_of_one_layer_is_built_once_more_in_the_backward_if_it_is_not_kept(
    kept_bytes: int, backward: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass of a matrix costs twice its forward pass. A matrix of one of the eight layers is built once
    more there if memory does not allow to keep it, except for the keys of the first layer. A shared matrix is kept."""
    monkeypatch.setattr("methods.memory.KEPT_BYTES", kept_bytes)
    shared, own = (flops_table([name], "bench")[0]["by_module"]["memory.build"] for name in ("memvp", "dehvf"))
    assert own["forward"] == 8 * shared["forward"]
    assert shared["backward"] == 2 * shared["forward"]
    assert own["backward"] == pytest.approx(backward * own["forward"])


@pytest.fixture(scope="module")
def memvp_rows():
    return json.loads(flops_text(["memvp"], "slice", "json"))


def test_json_holds_the_rows(memvp_rows):
    assert [(row["method"], row["phase"], row["visual_tokens"]) for row in memvp_rows] == [
        ("memvp", "train", 256),
        ("memvp", "inference", 256),
    ]


def test_modules_sum_to_the_total(memvp_rows):
    for row in memvp_rows:
        assert row["total"] == sum(m["forward"] + m["backward"] for m in row["by_module"].values())


def test_markdown_holds_the_totals_and_the_modules(memvp_rows):
    text = flops_text(["memvp"], "slice")
    assert "memory.read" in text and f"{memvp_rows[0]['total'] / 1e9:,.3f}" in text


def test_more_visual_tokens_than_the_memory_holds_are_rejected():
    with pytest.raises(UserError, match="memory_length to at least 576"):
        flops_table(["memvp"], "slice", visual_tokens=576)


def test_a_setting_of_no_method_is_rejected():
    with pytest.raises(UserError, match="--set nothing"):
        flops_table(["memvp"], "slice", settings={"nothing": 1})


def test_an_unknown_format_is_rejected():
    with pytest.raises(UserError, match="--format csv"):
        flops_text(["memvp"], "slice", "csv")


def test_the_command_line_counts_the_batch_of_its_options():
    options = "--methods memvp --model tiny --text-length 20 --train-batch 3 --format json"
    done = call("flops", *options.split())
    rows = json.loads(done.out)
    assert done.code == 0 and [row["batch"] for row in rows] == [3, 32] and {row["text_length"] for row in rows} == {20}
