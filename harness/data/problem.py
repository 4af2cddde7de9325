"""One multiple-choice problem, and the check that makes one from somebody else's record."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UserError, first_error

_QID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One multiple-choice problem; `answer` indexes `choices`, `image` is a file inside the data root."""

    qid: str
    split: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""
    image: Path | None = None
    caption: str = ""
    subject: str | None = None
    grade: str | None = None
    topic: str = ""
    category: str = ""
    skill: str = ""
    task: str = ""
    lecture: str = ""
    solution: str = ""


Text = Annotated[str, Field(max_length=100_000)]
NonEmpty = Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"\S")]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    question: NonEmpty
    choices: Annotated[list[NonEmpty], Field(min_length=1, max_length=26)]
    answer: Annotated[int, Field(ge=0)]
    hint: Text = ""
    image: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    subject: Literal["natural science", "social science", "language science"] | None = None
    grade: Annotated[str, Field(pattern=r"^grade([1-9]|1[0-2])$")] | None = None
    topic: Text = ""
    category: Text = ""
    skill: Text = ""
    task: Text = ""
    lecture: Text = ""
    solution: Text = ""
    split: str | None = None

    @model_validator(mode="after")
    def _answer_in_range(self) -> "_Record":
        if self.answer >= len(self.choices):
            raise ValueError(f"answer: {self.answer} is out of range for {len(self.choices)} choices")
        return self


def parse_problem(qid: str, raw: Any, split: str | None = None, source: str = "problems.json") -> Problem:
    """One record of `problems.json` (any mapping with its fields) as a Problem without image and caption.

    Args:
        qid: its id.
        raw: the mapping.
        split: the split that holds the id, or None to take the record's own.
        source: the file's name for errors.

    Raises:
        UserError: the first bad field, by qid and field.
    """
    if not isinstance(qid, str) or not _QID.fullmatch(qid):
        raise UserError(f"{source}: problem id {qid!r}: use letters, digits, - and _ only")
    try:
        record = _Record.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: problem {qid}, {first_error(error)}") from error
    if split is not None and record.split not in (None, split):
        raise UserError(
            f"{source}: problem {qid}, field 'split': says {record.split!r}, pid_splits.json says {split!r}"
        )
    fields = record.model_dump(exclude={"image", "split", "choices"})
    return Problem(qid=qid, split=split or record.split or "", choices=tuple(record.choices), **fields)
