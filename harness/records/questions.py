"""A few questions of a data set with small copies of their images. Runs on the same data share them.

No table is made from them. The answer of each run is in its predictions.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.records.beside import read_kept, write_kept
from harness.records.fields import Count, KeptImage, Section
from harness.records.sections import Data


class Question(Section):
    qid: str
    """Id of the question in the data set."""
    question: str
    """The question."""
    options: Annotated[list[str], Field(min_length=1)]
    """Its options."""
    gold: Count
    """Index of the right option."""
    hint: str = ""
    """Context of the question; empty where it has none."""
    category: str = ""
    """Category in the data set; empty where it has none."""
    image: KeptImage | None = None
    """Path, inside the results folder, of a copy of the image; null where the question has none."""


class Questions(Section):
    """Questions that are kept. The description of each field is in results/README.md."""

    schema_version: Literal[1] = 1
    """Version of this format; it is raised when a field changes its meaning."""
    questions: list[Question]
    """The questions, in the order of the data set."""


def samples_folder(task: str, data: Data) -> Path:
    """Return the folder of kept samples inside the results folder. Samples of different data never mix."""
    return Path("samples", task, f"{data.name}-{data.data_hash[:16]}")


def questions_path(task: str, data: Data, results_dir: Path) -> Path:
    """Return the path of the kept questions of a data set. Runs on a part of it have questions of that part."""
    name = "questions.json" if data.limit is None else f"questions-{data.limit}.json"
    return results_dir / samples_folder(task, data) / name


def write_questions(task: str, data: Data, results_dir: Path, questions: Questions) -> Path:
    """Write the kept questions of a data set, atomically, and return their path."""
    return write_kept(questions_path(task, data, results_dir), questions, indent=1)


def read_questions(task: str, data: Data, results_dir: Path) -> Questions | None:
    """Return the kept questions of a data set; None if none were kept.

    Raises:
        UserError: the file has an error.
    """
    return read_kept(questions_path(task, data, results_dir), Questions)
