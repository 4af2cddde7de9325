"""The facts of the tasks agree with the tasks, with the scorers and with the paper's tables."""

import importlib

import pytest

from harness.errors import UserError
from harness.evaluation import caption_metrics, scienceqa_metrics
from harness.report.paper import Layout, Paper, load_paper
from harness.tasks.facts import TASKS, task_facts


@pytest.mark.parametrize("name", TASKS)
def test_the_implementation_has_the_name_it_is_registered_under(name: str) -> None:
    module, _, attribute = TASKS[name].implementation.partition(":")
    assert getattr(importlib.import_module(module), attribute).name == name


@pytest.mark.parametrize("name", TASKS)
def test_headline_columns_are_columns(name: str) -> None:
    facts = TASKS[name]
    assert set(facts.headline) <= set(facts.columns)
    assert facts.summary == facts.headline[-1]


@pytest.mark.parametrize("name", TASKS)
def test_partitions_are_of_columns(name: str) -> None:
    for columns in TASKS[name].partitions:
        assert len(set(columns)) == len(columns) and set(columns) < set(TASKS[name].columns)


def test_the_columns_are_those_of_the_scorers() -> None:
    assert TASKS["scienceqa"].columns == scienceqa_metrics.COLUMNS
    assert set(TASKS["coco"].columns) <= set(caption_metrics.METRICS)


def test_an_unknown_task_is_an_error_that_lists_the_tasks() -> None:
    with pytest.raises(UserError, match="--task vqa: no such task; choose one of coco, scienceqa"):
        task_facts("vqa")


def test_a_layout_with_a_column_that_the_task_does_not_score_is_rejected() -> None:
    content = load_paper().tables["1"].model_dump() | {"columns": ({"key": "CIDEr"},)}
    with pytest.raises(ValueError, match="column CIDEr: not a metric of scienceqa"):
        Layout(**content)


def test_a_layout_of_an_unknown_task_is_rejected() -> None:
    content = load_paper().tables["1"].model_dump() | {"task": "vqa"}
    with pytest.raises(ValueError, match="task vqa: no such task"):
        Layout(**content)


def test_a_paper_without_the_table_of_a_task_is_rejected() -> None:
    content = load_paper().model_dump()
    del content["tables"]["3"]
    with pytest.raises(ValueError, match=r"tables\.3: .*names it as a table of task coco"):
        Paper(**content)
