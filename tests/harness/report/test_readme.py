"""The generated page results/README.md."""

from pathlib import Path

from harness.records import write_record
from harness.report.readme import results_readme, write_readme
from tests.record_factory import make


def test_a_page_without_records_says_so():
    assert "No completed run" in results_readme([], Path("none"))


def test_the_page_has_the_tables_of_the_models_with_records(tmp_path):
    write_record(make(value=61.5), tmp_path)
    text = write_readme(tmp_path).read_text(encoding="utf-8")
    assert "61.50" in text and "python -m harness" in text
    assert "7b: table 1" not in text


def test_the_page_explains_every_field_in_one_row(tmp_path):
    text = results_readme([make()], Path("none"))
    assert "`times_s.train_step_median`" in text and "`metrics.*.stderr`" in text
    guide = text.partition("## Fields of a record")[2].partition("\n## ")[0]
    rows = [line for line in guide.splitlines() if line.startswith("|")][2:]
    assert rows and all(row.startswith("| `") and row.split("|")[2].strip() for row in rows)


def test_the_page_says_where_the_paper_disagrees():
    assert "420 for LLaMA-13B" in results_readme([], Path("none"))
