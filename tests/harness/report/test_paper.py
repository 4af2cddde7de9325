"""The paper's numbers agree with each other and with the paper's text, so a typing error is caught."""

import pytest

from harness.errors import UserError
from harness.report import paper
from harness.tasks.facts import TASKS
from tests.record_factory import NINE

SUBJECTS, GRADES = TASKS["scienceqa"].partitions


def weighted(values, columns):
    sizes = paper.load_paper().official_columns["scienceqa"]
    return sum(values[name] * sizes[name] for name in columns) / sum(sizes[name] for name in columns)


def test_printed_inconsistencies_are_the_papers():
    row = paper.find_row(1, "dehvf", None, "13b")
    assert row is not None
    assert weighted(row.values, SUBJECTS) == pytest.approx(94.41, abs=0.01)
    assert weighted(row.values, GRADES) == pytest.approx(94.38, abs=0.01)
    lavin = paper.find_row(1, "lavin", None, "13b")
    assert lavin is not None
    assert weighted(lavin.values | {"G7-12": 89.26}, GRADES) == pytest.approx(90.50, abs=0.005)
    adapter = paper.find_row(1, "llama_adapter", None, "7b")
    assert adapter is not None
    assert weighted(adapter.values | {"NAT": 84.37}, SUBJECTS) == pytest.approx(85.19, abs=0.01)


@pytest.mark.parametrize(("model", "gain"), [("7b", 0.47), ("13b", 0.41)])
def test_gain_over_memvp(model, gain):
    ours, theirs = (paper.paper_value(1, m, None, model, "Avg") for m in ("dehvf", "memvp"))
    assert ours - theirs == pytest.approx(gain, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "train", "inference"),
    [("llava_lora", 1.75, 1.82), ("lavin", 1.39, 1.10), ("memvp", 1.0, 1.0), ("dehvf", 1.14, 1.19)],
)
def test_table_2_ratios(method, train, inference):
    for column, ratio in (("train", train), ("inference", inference)):
        value = paper.paper_value(2, method, None, "7b", column)
        base = paper.paper_value(2, "memvp", None, "7b", column)
        assert round(value / base, 2) == ratio


def test_one_and_a_half_times_faster_than_llava_lora():
    for column in ("train", "inference"):
        slow, ours = (paper.paper_value(2, m, None, "7b", column) for m in ("llava_lora", "dehvf"))
        assert round(slow / ours, 1) == 1.5


def test_caption_gains():
    rows = {row.name: row.values for row in paper.paper_rows(3)}
    for name, bleu, cider in (("Adapter V2", 0.9, 6.7), ("LaVIN", 0.7, 2.0)):
        assert rows["DEHVF"]["BLEU-4"] - rows[name]["BLEU-4"] == pytest.approx(bleu)
        assert rows["DEHVF"]["CIDEr"] - rows[name]["CIDEr"] == pytest.approx(cider)


def test_tables_repeat_each_other():
    for row in paper.paper_rows(2):
        assert row.values["Avg"] == paper.paper_value(1, row.method, None, "7b", "Avg")
        assert row.trainable == paper.printed_trainable(row.method, None, "7b", table=1)
    dehvf = {row.variant: row.values for row in paper.paper_rows(4)}
    assert dehvf[None] == paper.find_row(1, "dehvf", None, "7b").values
    assert dehvf["no_multi_features"] == paper.find_row(1, "memvp", None, "7b").values
    assert paper.find_row(3, "lavin", None, "13b").trainable == "5.4M"


def test_printed_counts():
    printed = {
        ("llama_adapter", None, "7b"): "1.8M",
        ("llava_lora", None, "7b"): "4.4M",
        ("lavin", None, "7b"): "3.8M",
        ("memvp", None, "7b"): "3.9M",
        ("dehvf", None, "7b"): "4.17M",
        ("lavin", None, "13b"): "5.4M",
        ("memvp", None, "13b"): "5.5M",
        ("dehvf", None, "13b"): "5.8M",
        ("dehvf", "no_visual_prompts", "7b"): "3.22M",
        ("dehvf", "no_adaptive_weights", "7b"): "3.88M",
        ("dehvf", "no_multi_features", "7b"): "3.88M",
        ("dehvf", "shared_query", "7b"): "4.15M",
        ("dehvf", "keys_only", "7b"): "4.17M",
        ("dehvf", "values_only", "7b"): "4.17M",
        ("dehvf", "learnable_tokens", "7b"): None,
        ("memvp", None, "tiny"): None,
    }
    for (method, variant, model), count in printed.items():
        assert paper.printed_trainable(method, variant, model) == count
    assert paper.printed_trainable("dehvf", None, "7b", table=1) == "4.2M"


def test_every_row_is_there():
    assert [len(paper.paper_rows(table)) for table in (1, 2, 3, 4)] == [13, 4, 6, 8]


@pytest.mark.parametrize("table", [1, 4])
def test_the_tables_of_scienceqa_have_its_nine_columns(table):
    assert [column.key for column in paper.layout(table).columns] == NINE
    for row in paper.paper_rows(table):
        assert set(row.values) <= set(NINE)


def test_the_official_splits():
    assert paper.load_paper().official_splits["scienceqa"] == {"train": 12726, "val": 4241, "test": 4241}


def test_columns_that_do_not_split_the_test_split_are_rejected():
    content = paper.load_paper().model_dump()
    content["official_columns"]["scienceqa"]["NAT"] -= 1
    with pytest.raises(ValueError, match=r"official_columns\.scienceqa: NAT, SOC, LAN have 4240 problems, not 4241"):
        paper.Paper(**content)


def test_methods_are_in_the_papers_order():
    assert list(paper.method_names()) == ["llama_adapter", "llava_lora", "lavin", "memvp", "dehvf"]


def test_disagreements_are_named():
    named = {item.id for item in paper.disagreements()}
    assert {"memory-length-13b", "learning-rate", "name", "learnable-tokens", "avg-13b", "lavin-13b"} <= named


def test_an_unknown_table_is_an_error():
    with pytest.raises(UserError, match="--table 9"):
        paper.layout(9)


def test_what_the_paper_does_not_print_has_no_value():
    assert paper.paper_value(1, "dehvf", None, "tiny", "Avg") is None
    assert paper.paper_value(3, "dehvf", None, "13b", "METEOR") is None
