"""A method from a package outside the tree, the example of CONTRIBUTING.md, is listed, counted, trained and tested.

It is trained and tested in new processes, as its author does it, and listed and counted in this one.
"""

import json
import re
from pathlib import Path

import pytest

from harness.records import read_records
from harness.report.tables import leaderboard
from tests.command_line import call
from tests.folders import save_mini
from tests.outside.packages import ROOT, declare, install, python, seen_here

pytestmark = pytest.mark.slow
PACKAGE = Path(__file__).parent / "image_bias"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example package is installed."""
    folder = tmp_path_factory.mktemp("site")
    install(PACKAGE, folder)
    return folder


def harness(site: Path, *arguments: object) -> str:
    """Run the command line, which must succeed, and return what it prints."""
    with seen_here(site):
        done = call(*arguments)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize(("language", "name"), [("python", "image_bias.py"), ("toml", "pyproject.toml")])
def test_contributing_shows_the_package_as_it_is(language: str, name: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert (PACKAGE / name).read_text(encoding="utf-8") in blocks


def test_it_is_listed(site: Path) -> None:
    listed = {row["method"]: row for row in json.loads(harness(site, "methods", "--format", "json"))}
    assert listed["image_bias"]["title"] == "Image bias"
    assert "memvp" in listed


def test_it_is_counted(site: Path) -> None:
    options = ["--methods", "image_bias", "--model", "tiny", "--format", "json"]
    (row,) = json.loads(harness(site, "params", *options))
    parts = {module: part["count"] for module, part in row["by_module"].items()}
    assert parts.keys() == {"projector.down", "projector.up", "biases"}
    llm = json.loads((ROOT / "harness/assets/tiny/llm/config.json").read_text(encoding="utf-8"))
    assert parts["biases"] == llm["num_hidden_layers"]
    assert row["trainable"] == row["trained"] == sum(parts.values())
    assert (row["paper"], row["matches"]) == (None, None)


def test_without_formulas_its_flops_are_missing_and_the_others_stay(site: Path) -> None:
    text = harness(site, "flops", "--methods", "image_bias,memvp", "--model", "tiny")
    totals = re.findall(r"^\| (\w+) +\| tiny .*\| +([\d.,]+|n/a) \|$", text, flags=re.MULTILINE)
    assert [name for name, total in totals if total == "n/a"] == ["image_bias", "image_bias"]
    assert [name for name, total in totals if total != "n/a"] == ["memvp", "memvp"]
    assert "n/a: FLOPs not counted (see methods/cost.py) by image_bias." in text


def test_it_is_trained_and_stands_in_the_table(site: Path, tmp_path: Path) -> None:
    data, results = save_mini(tmp_path / "mini"), tmp_path / "results"
    quick = ["--data-root", data, "--steps", 2, "--set", "batch_size=4", "--device", "cpu"]
    done = python(
        site, "-m", "harness", "run", "--methods", "image_bias", "--model", "tiny", *quick, "--results", results
    )
    assert done.returncode == 0, done.stderr
    (record,) = read_records(results)
    assert (record.method, record.status, record.steps) == ("image_bias", "completed", 2)
    assert record.metrics["Avg"].n == 12
    assert record.environment.versions["image-bias"] == "0.1.0"
    assert list((results / "adapters").rglob("adapter_model.safetensors"))
    assert re.search(r"^\| image_bias +\|", done.stdout, flags=re.MULTILINE)
    # Tables are built from records alone, so the method need not be registered in this process.
    (row,) = [row for row in leaderboard([record], 1, "tiny").rows if row.method == "image_bias"]
    assert row.metrics["Avg"].value == record.metrics["Avg"].value


def test_it_keeps_the_contract(site: Path) -> None:
    """Run the tests that an outside author runs, by the command in CONTRIBUTING.md."""
    files = "tests/test_method_contract.py tests/methods/test_execution.py tests/methods/test_quantised.py"
    command = f"python -m pytest {files} -k image_bias"
    assert command in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    done = python(site, *command.split()[1:], "-p", "no:cacheprovider", "-m", "not gpu")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout) and "skipped" not in done.stdout


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    declare(tmp_path, "wrong", lost="no_such_module:Method")
    with seen_here(tmp_path):
        done = call("methods")
    assert done.code == 2 and not done.out
    complaint = "method lost: no_such_module:Method: No module named 'no_such_module'; repair its package"
    assert done.err.startswith(f"error: {complaint}") and done.err.count("\n") == 1
