"""Which timings a table of costs shows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from harness.errors import UserError
from harness.records import Record
from harness.report.paper import layout
from harness.report.selection import where_measured


@dataclass(frozen=True)
class TimedFilter:
    """Which timings to show; None shows all.

    Attributes:
        device: a part of the name of the GPU or CPU, in any case; `cpu` and `gpu` stand for all of their kind.
        dtype: dtype of the frozen weights.
        compiled: whether the decoder layers were compiled.
        text_length: text tokens per sample.
    """

    device: str | None = None
    dtype: str | None = None
    compiled: bool | None = None
    text_length: int | None = None

    def given(self) -> list[str]:
        """Return the options that were given, as they are typed."""
        return [f"--{one.name.replace('_', '-')}" for one in fields(self) if getattr(self, one.name) is not None]

    def matches(self, record: Record) -> bool:
        """Return whether a timing is to be shown."""
        setting = record.speed.setting if record.speed else None
        return (
            self._on_device(record)
            and self.dtype in (None, record.backbone.dtype)
            and self.compiled in (None, bool(setting and setting.compiled))
            and self.text_length in (None, setting.text_length if setting else None)
        )

    def _on_device(self, record: Record) -> bool:
        if self.device is None:
            return True
        gpu, asked = record.environment.gpu, self.device.lower()
        if asked in ("cpu", "gpu", "cuda"):
            return (gpu is None) == (asked == "cpu")
        return asked in (gpu or record.environment.cpu or "").lower()


def filtered(records: Sequence[Record], table: int, wanted: TimedFilter) -> list[Record]:
    """Return the records that a filter lets through; all of them where it asks for nothing.

    Raises:
        UserError: the table is not one of measured times, or no record of it is let through.
    """
    if not (given := wanted.given()):
        return list(records)
    plan = layout(table)
    if plan.setting != "device":
        raise UserError(f"{given[0]}: table {table} is not about measured times; leave it out, or give --table 2")
    ours = [record for record in records if record.task == plan.task and record.kind in plan.kinds]
    found = [record for record in ours if wanted.matches(record)]
    if ours and not found:
        settings = "; ".join(sorted({where_measured(record) for record in ours}))
        raise UserError(f"{', '.join(given)}: no timing of table {table} matches; there are: {settings}")
    return found
