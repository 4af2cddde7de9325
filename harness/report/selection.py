"""Which records may stand in a table, and which belong together. Nothing is left out without a note."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from harness.records import Record
from harness.report.paper import Layout, layout, load_paper, paper_models

T = TypeVar("T", bound=Hashable)
RowKey = tuple[str, str | None, str]
"""Method, variant, model."""


@dataclass
class Selection:
    """`groups`: the runs of each row, which differ by seed only; `notes`: what was left out, and why."""

    groups: dict[RowKey, list[Record]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# What the rows of one model must share, so that they can be compared.
_SETTINGS: Mapping[str, Callable[[Record], tuple[object, ...]]] = {
    "data": lambda r: (r.data.data_hash, r.backbone.weight_hash),
    "device": lambda r: (
        r.environment.gpu or r.environment.cpu,
        r.environment.threads,
        r.backbone.dtype,
        r.speed and r.speed.setting,
    ),
}


def by_setting(records: Sequence[Record], table: int) -> list[list[Record]]:
    """The records of one model in parts that one table can show: a measurement of cost for each of its settings."""
    plan = layout(table)
    if plan.setting != "device":
        return [list(records)]
    ours = [record for record in records if record.kind in plan.kinds]
    return list(_by(ours, _SETTINGS[plan.setting]).values())


def select(records: Iterable[Record], table: int, plan: Layout) -> Selection:
    """The records that enter one table, grouped by row.

    Left out, with a note: failed and interrupted runs, runs on part of the data (--limit), random weights
    (unless the table is about cost), loaded machines, runs of the paper's models on anything but the official
    set. Rows of one model share data and backbone (the setting with the most runs, then the newest); a row is
    one configuration (the newest), so runs of different configurations are never averaged.
    """
    selection = Selection()
    left_out: Counter[str] = Counter()
    usable: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.task != plan.task or record.kind not in plan.kinds:
            continue
        if reason := _refusal(record, table, plan):
            left_out[reason] += 1
        else:
            usable[record.model].append(record)
    for model, runs in usable.items():
        kept = _one_setting(runs, _SETTINGS[plan.setting], left_out)
        for (method, variant), row in _by(kept, lambda r: (r.method, r.variant)).items():
            group = _one_configuration(row, left_out)
            selection.groups[method, variant, model] = _one_run_a_seed(group, left_out)
    selection.notes += [f"{count_runs(count)} left out: {reason}." for reason, count in sorted(left_out.items())]
    kept = [record for group in selection.groups.values() for record in group]
    selection.notes += [] if plan.random_weights else _other_data(kept)
    selection.notes += _remarks(kept)
    return selection


def _refusal(record: Record, table: int, plan: Layout) -> str | None:
    """Why a record may not enter the table; None if it may."""
    accuracy = not plan.random_weights
    loaded = record.speed is not None and record.speed.loaded
    reasons = {
        record.status: record.status != "completed",
        "random weights": accuracy and record.backbone.weights == "random",
        "part of the data only (--limit)": accuracy and record.data.limit is not None,
        "made on a loaded machine": loaded,
        "evaluated on the validation split, to search a recipe": _eval_split(record) != "test",
        "not the official data set, so not comparable with the paper's model": accuracy
        and record.model in paper_models(table)
        and not _is_official(record),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _is_official(record: Record) -> bool:
    """Whether the set has the official number of records in every split."""
    official = load_paper().official_splits.get(record.task, {})
    return all(record.data.split_sizes.get(split) == size for split, size in official.items())


def _other_data(kept: Sequence[Record]) -> list[str]:
    """Which set the rows of a model stand on, where it is not the one that the table is called after."""
    return [
        f"{model}: the set `{name}` ({' / '.join(f'{size:,}' for _, size in sizes)}), not the official one."
        for model, name, sizes in dict.fromkeys(
            (record.model, record.data.name, tuple(record.data.split_sizes.items()))
            for record in kept
            if not _is_official(record)
        )
    ]


def _eval_split(record: Record) -> str:
    train = record.config.get("train")
    return str(train.get("eval_split", "test")) if isinstance(train, dict) else "test"


def _one_setting(
    runs: list[Record], setting: Callable[[Record], tuple[object, ...]], left_out: Counter[str]
) -> list[Record]:
    settings = sorted(_by(runs, setting).values(), key=lambda group: (len(group), _newest(group)))
    for group in settings[:-1]:
        first = group[0]
        reason = f"other data, weights or device than the other rows of {first.model} ({first.data.name})"
        left_out[reason] += len(group)
    return settings[-1]


def _one_configuration(runs: list[Record], left_out: Counter[str]) -> list[Record]:
    configurations = sorted(_by(runs, lambda r: r.config_hash).values(), key=_newest)
    for group in configurations[:-1]:
        left_out[f"an older configuration of {group[0].label} on {group[0].model}"] += len(group)
    return configurations[-1]


def _one_run_a_seed(runs: list[Record], left_out: Counter[str]) -> list[Record]:
    newest = {record.seed: record for record in sorted(runs, key=lambda r: r.created)}
    if repeated := len(runs) - len(newest):
        left_out[f"an older run of the same seed of {runs[0].label} on {runs[0].model}"] += repeated
    return [newest[seed] for seed in sorted(newest)]


def _remarks(kept: Sequence[Record]) -> list[str]:
    """What a reader must know about the runs that did enter."""
    skipped = sum(record.data.skipped_images > 0 for record in kept)
    cut = sum(any((record.truncated.train, record.truncated.eval)) for record in kept if record.truncated)
    machines = dict.fromkeys(where_measured(record) for record in kept if record.speed is not None)
    dirty = sum(record.git.dirty is not False for record in kept)
    remarks = [f"Measured on {machine}." for machine in machines]
    if skipped:
        remarks.append(f"{count_runs(skipped)} skipped unreadable images.")
    if cut:
        remarks.append(f"{count_runs(cut)} cut texts that are longer than the recipe's max_length.")
    if dirty:
        remarks.append(f"{count_runs(dirty)} from code that is not known to be that of a commit.")
    return remarks


def where_measured(record: Record) -> str:
    """Model, device and batches of a speed measurement."""
    environment = record.environment
    device = environment.gpu or f"{environment.cpu or 'an unknown CPU'}, {environment.threads} threads"
    setting = record.speed.setting if record.speed else None
    if setting is None:
        return f"{device}, {record.backbone.dtype} ({record.model})"
    return (
        f"{device}, {record.backbone.dtype}{', compiled' if setting.compiled else ''} ({record.model}: text "
        f"{setting.text_length}, batch {setting.train_batch} and {setting.eval_batch}, {setting.new_tokens} new tokens)"
    )


def _by(records: Iterable[Record], key: Callable[[Record], T]) -> dict[T, list[Record]]:
    groups: dict[T, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(groups)


def _newest(records: Sequence[Record]) -> datetime:
    return max(record.created for record in records)


def count_runs(count: int) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} run{'s' if count != 1 else ''}"
