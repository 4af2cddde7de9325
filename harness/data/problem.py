"""One multiple-choice problem, and the validation of the record that it comes from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UserError, first_error

_QID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One multiple-choice problem; `answer` is an index into `choices`, `image` a file inside the data folder."""

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
    """The fields of a record in `problems.json`. Published partial copies leave out metadata, so most are optional."""

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


def parse_problem(qid: str, raw: object, split: str | None = None, source: str = "problems.json") -> Problem:
    """Validate one record of `problems.json` and return it as a Problem without image and caption.

    Args:
        qid: id of the problem.
        raw: the record, a mapping with the fields of `problems.json`.
        split: the split that lists the id; None takes the split from the record.
        source: what messages call the file.

    Raises:
        UserError: the id or a field is wrong; names the problem and the first wrong field.
    """
    if not isinstance(qid, str) or not _QID.fullmatch(qid):
        raise UserError(f"{source}: problem id {qid!r}: not allowed; use up to 64 letters, digits, - and _")
    try:
        record = _Record.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: problem {qid}, {first_error(error)}; correct the record") from error
    if split is not None and record.split not in (None, split):
        raise UserError(
            f"{source}: problem {qid}, field 'split': is {record.split!r}, but pid_splits.json lists it in {split!r}; "
            "correct one of them"
        )
    fields = record.model_dump(exclude={"image", "split", "choices"})
    return Problem(qid=qid, split=split or record.split or "", choices=tuple(record.choices), **fields)
