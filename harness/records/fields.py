"""The types of fields, and the base of all sections of a record."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from harness.escape import LONGEST_NAME, visible


class NeedsReason:
    """Marks a field that may be null only if the record's `missing` gives the reason."""


REASON = NeedsReason()


def _printable(value: Any, info: ValidationInfo) -> Any:
    """Escape control characters in what the harness found out; refuse them in a file, where they do not belong."""
    if not isinstance(value, str) or (plain := visible(value)) == value:
        return value
    if info.mode == "json":
        raise ValueError("contains control characters")
    return plain


Text = Annotated[str, BeforeValidator(_printable)]
"""Text from outside, such as the name of a folder, a processor or the message of a library."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SpecHash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
Name = Annotated[str, Field(pattern=_NAME, max_length=LONGEST_NAME)]
Label = Annotated[str, Field(pattern=_NAME, max_length=2 * LONGEST_NAME + 1)]
"""Two names and a hyphen."""
KeptImage = Annotated[str, Field(pattern=r"^samples/[A-Za-z0-9_./+-]+$", max_length=3 * LONGEST_NAME)]
"""Path of a kept image, inside the results folder."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that the 64 bits of a column of a table hold."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seconds = Annotated[float, Field(ge=0, le=1e18)]
"""A time, an amount or a rate, such as the FLOPs per second of a GPU. Means and squares of such numbers are finite."""
Number = Annotated[float, Field(ge=-1e39, le=1e39)]
"""A number that 32 bits hold, such as the loss of a training that diverges."""
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2262, 1, 1, tzinfo=UTC)),
    AfterValidator(lambda moment: moment.astimezone(UTC)),
]
"""A time in UTC that every library for tables can express, in every time zone."""
MaybeCount = Annotated[Count | None, REASON]
MaybeSeconds = Annotated[Seconds | None, REASON]
MaybeFloat = Annotated[Number | None, REASON]


def _descriptions_on_one_line(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        if "description" in field:
            field["description"] = " ".join(field["description"].split())


class Section(BaseModel):
    """Base of all sections: rejects unknown fields, NaN and infinity, and cannot be changed once it is made."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_descriptions_on_one_line,
    )


def unexplained(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the paths of the fields of `section`, and of the sections in it, that are null and need a reason.

    `prefix` is put in front of each path.
    """
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and REASON in field.metadata:
            yield prefix + name
        elif isinstance(value, BaseModel):
            yield from unexplained(value, f"{prefix}{name}.")
