"""What is committed under results/, and shown in README, is what the committed records give."""

import shutil
from pathlib import Path

from harness.readme import write_readme
from harness.tables import table_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def test_readme_shows_the_table_of_the_records() -> None:
    rows = [line for line in table_text(RESULTS, 1, "tiny", "markdown").splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert "\n".join(rows) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_results_is_up_to_date(tmp_path: Path) -> None:
    copied = shutil.copytree(RESULTS, tmp_path / "results")
    before = (copied / "README.md").read_text(encoding="utf-8")
    assert write_readme(copied).read_text(encoding="utf-8") == before
