"""Which records may enter a table, and which of them form a row. Whatever is left out is noted below the table."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from harness.config.presets import PRESETS, base_model
from harness.config.recipes import train_recipe
from harness.records import Record
from harness.report.paper import Layout, layout, load_paper, paper_models
from harness.tasks.facts import task_facts

T = TypeVar("T", bound=Hashable)
RowKey = tuple[str, str | None, str]
"""Method, variant, model."""


@dataclass
class Selection:
    """The records of one table.

    Attributes:
        groups: the runs of each row, which differ only in their seed.
        left_out: why runs are in no row -> these runs.
        of_cost: whether the table is about cost, for which the data do not matter.
    """

    of_cost: bool
    groups: dict[RowKey, list[Record]] = field(default_factory=dict)
    left_out: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))

    def notes(self, about: Callable[[Record], bool] = lambda run: True) -> list[str]:
        """Return which records were left out and why, and remarks on those that were not.

        Args:
            about: whether the notes are about a run.
        """
        left_out = sorted((reason, sum(map(about, runs))) for reason, runs in self.left_out.items())
        kept = [run for group in self.groups.values() for run in group if about(run)]
        return [
            *(f"{count_runs(count)} left out: {reason}." for reason, count in left_out if count),
            *([] if self.of_cost else _other_data(kept)),
            *_remarks(kept),
        ]


_ASKED = (
    "prompt_format",
    "use_caption",
    "eval_prompt_format",
    "eval_use_caption",
    "scoring",
    "max_new_tokens",
    "beams",
    "length_penalty",
)
"""Settings of a run that say what is asked and how answers are read. Under the uniform protocol all rows share them."""


def _asked(record: Record) -> tuple[object, ...]:
    shared = record.recipe and record.protocol == "uniform"
    return tuple(record.recipe.get(name) for name in _ASKED) if shared else ()


# What all rows of one model must share to be comparable.
_SETTINGS: Mapping[str, Callable[[Record], tuple[object, ...]]] = {
    "data": lambda r: (r.data.data_hash, r.backbone.weight_hash, r.backbone.settings_hash, r.backbone.dtype, _asked(r)),
    "device": lambda r: (
        r.environment.gpu or r.environment.cpu,
        None if r.environment.gpu else r.environment.threads,
        r.backbone.dtype,
        r.speed and r.speed.setting,
    ),
}


def by_setting(records: Sequence[Record], table: int) -> list[list[Record]]:
    """Split the records of one model into groups that one table can show.

    For a table of costs there is one group per device and timed setting; for any other table there is one group.
    """
    plan = layout(table)
    if plan.setting != "device":
        return [list(records)]
    ours = [record for record in records if record.kind in plan.kinds]
    return list(_by(ours, _SETTINGS[plan.setting]).values())


def select(records: Iterable[Record], table: int, plan: Layout, protocol: str = "uniform") -> Selection:
    """Choose the records that enter one table, and group them by row.

    These are left out, with a note: runs that failed or were interrupted, runs on part of the data (--limit), runs with
    random weights (unless the table is about cost), timings on a busy machine, runs that were evaluated on the
    validation split, runs of another protocol, and runs of the paper's models on any but the official data set.

    All rows of a model share their data, weights and dtype, and under the uniform protocol also their prompts, their
    decoder and the length of training. If the records contain several such settings, the one with the most runs is
    kept, and of equally frequent ones the newest; of several lengths, that of the recipe, if there is a run of it. In a
    table of costs, the rows share the device and the timed setting instead. A row uses only the newest
    configuration, so runs with different configurations are never averaged. Of several runs with one seed, the newest
    is used.

    Args:
        records: any records; those of other tasks and kinds are ignored.
        table: number of the table.
        plan: how that table is laid out.
        protocol: the protocol of the runs; runs of different protocols are never in one table.
    """
    selection = Selection(plan.random_weights)
    left_out = selection.left_out
    usable: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.task != plan.task or record.kind not in plan.kinds:
            continue
        if reason := _reason_to_leave_out(record, table, plan, protocol):
            left_out[reason].append(record)
        else:
            usable[record.model].append(record)
    for model, runs in usable.items():
        other = f"other data, weights, dtype, prompts or device than the other rows of {model}"
        kept = _most_frequent(runs, _SETTINGS[plan.setting], other, left_out)
        if plan.setting == "data":
            kept = _of_one_length(kept, left_out)
        for (method, variant), row in _by(kept, lambda r: (r.method, r.variant)).items():
            group = _one_configuration(row, left_out)
            selection.groups[method, variant, model] = _one_run_per_seed(group, left_out)
    return selection


def _reason_to_leave_out(record: Record, table: int, plan: Layout, protocol: str) -> str | None:
    """Return why a record may not enter the table; None where it may."""
    accuracy = not plan.random_weights
    loaded = record.speed is not None and record.speed.loaded
    reasons = {
        f"of the {record.protocol} protocol, which --protocol {record.protocol} shows": plan.has_protocol
        and record.protocol != protocol,
        record.status: record.status != "completed",
        "random weights": accuracy and record.backbone.weights == "random",
        "on part of the data only (--limit)": accuracy and record.data.limit is not None,
        "timed on a loaded machine": loaded,
        "evaluated on the validation split, as part of a search": record.eval_split != "test",
        "not on the official data set, so not comparable with the paper": accuracy
        and record.model in paper_models(table)
        and not is_official(record),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def is_official(record: Record) -> bool:
    """Return whether the data set has the official number of samples in every split."""
    official = load_paper().official_splits.get(record.task, {})
    return all(record.data.split_sizes.get(split) == size for split, size in official.items())


def remarks_on(record: Record) -> list[str]:
    """Return what a reader must know about the numbers of one record, in the sentences of the tables."""
    number = task_facts(record.task).table
    reason = _reason_to_leave_out(record, number, layout(number), record.protocol)
    alone = [f"No table includes this run: {reason}."] if reason else []
    return alone + _other_data([record]) + _remarks([record])


def _other_data(kept: Sequence[Record]) -> list[str]:
    """Return a note for each model whose rows are not on the official data set of the table."""
    return [
        f"{model} is on the data set `{name}` ({' / '.join(f'{size:,}' for _, size in sizes)} samples), "
        "not on the official one."
        for model, name, sizes in dict.fromkeys(
            (record.model, record.data.name, tuple(record.data.split_sizes.items()))
            for record in kept
            if not is_official(record)
        )
    ]


def _most_frequent(
    runs: list[Record],
    setting: Callable[[Record], Hashable],
    reason: str,
    left_out: dict[str, list[Record]],
    preferred: Callable[[Record], bool] = lambda record: False,
) -> list[Record]:
    """Return the runs with the preferred, else the most frequent setting, and note why the others are left out."""
    settings = sorted(_by(runs, setting).values(), key=lambda group: (preferred(group[0]), len(group), _newest(group)))
    for group in settings[:-1]:
        left_out[f"{reason} ({group[0].data.name})"] += group
    return settings[-1] if settings else []


def _of_one_length(runs: list[Record], left_out: dict[str, list[Record]]) -> list[Record]:
    """Return the runs of one model whose training is equally long, as long as in the recipe if there are such runs.

    Published protocols have lengths of their own.
    """

    def as_in_recipe(record: Record) -> bool:
        preset = PRESETS.get(base_model(record.model, record.backbone.quantize))
        # Which recipe the run of another model had is not recorded.
        return preset is not None and record.recipe.get("epochs") == (
            train_recipe(record.method, preset.recipe, record.task).epochs
        )

    trained = [run for run in runs if run.kind == "train" and run.protocol == "uniform"]
    reason = f"another number of epochs than the other rows of {runs[0].model}"
    chosen = _most_frequent(trained, lambda r: str(r.recipe.get("epochs")), reason, left_out, as_in_recipe)
    others = {id(run) for run in trained} - {id(run) for run in chosen}
    return [run for run in runs if id(run) not in others]


def _one_configuration(runs: list[Record], left_out: dict[str, list[Record]]) -> list[Record]:
    configurations = sorted(_by(runs, lambda r: r.config_hash).values(), key=_newest)
    for group in configurations[:-1]:
        left_out[f"an older configuration of {group[0].label} on {group[0].model}"] += group
    return configurations[-1]


def _one_run_per_seed(runs: list[Record], left_out: dict[str, list[Record]]) -> list[Record]:
    newest = {record.seed: record for record in sorted(runs, key=lambda r: r.created)}
    if repeated := [run for run in runs if run is not newest[run.seed]]:
        left_out[f"an older run of the same seed of {runs[0].label} on {runs[0].model}"] += repeated
    return [newest[seed] for seed in sorted(newest)]


def measured_on(where: str) -> str:
    """Return the note on where timings were measured, see `where_measured`."""
    return f"Measured on {where}."


def _remarks(kept: Sequence[Record]) -> list[str]:
    """Return what a reader must know about the records that entered the table."""
    skipped = sum(record.data.skipped_images > 0 for record in kept)
    cut = sum(any((record.truncated.train, record.truncated.eval)) for record in kept if record.truncated)
    machines = dict.fromkeys(where_measured(record) for record in kept if record.speed is not None)
    dirty = sum(record.git.dirty is not False for record in kept)
    remarks = [measured_on(machine) for machine in machines]
    if skipped:
        remarks.append(f"{count_runs(skipped)} skipped unreadable images.")
    if cut:
        remarks.append(f"{count_runs(cut)} cut texts that were longer than the recipe's max_length.")
    if parted := sum(bool(record.environment.earlier) for record in kept):
        remarks.append(f"{count_runs(parted)} went on with other code or on another machine after an interruption.")
    remarks += unread_note(kept)
    if dirty:
        remarks.append(f"{count_runs(dirty)} from code with uncommitted changes or of an unknown commit.")
    return remarks


def unread_note(kept: Sequence[Record]) -> list[str]:
    """Return the note on answers that could not be read, with their share in each row that has any, over its seeds.

    Args:
        kept: the runs of all rows of a table.

    Returns:
        One note; none where every answer could be read.
    """
    unread = _unread(kept)
    return [f"Answers that could not be read: {unread}; they {_fate(kept)}."] if unread else []


def _unread(kept: Sequence[Record]) -> str:
    shares = []
    several = len({record.model for record in kept}) > 1
    for (label, model), runs in _by(kept, lambda r: (r.label, r.model)).items():
        found = [run.parse_failures for run in runs if run.parse_failures]
        if count := sum(failures.count for failures in found):
            share = 100 * count / sum(failures.n for failures in found)
            shares.append(f"{label}{f' on {model}' if several else ''} {_percent(share)}")
    return ", ".join(shares)


def _percent(share: float) -> str:
    return "< 0.01 %" if share < 0.01 else f"{share:.2f} %"


def _fate(kept: Sequence[Record]) -> str:
    """Return what became of the answers that could not be read."""
    sampled = any(record.recipe.get("sampling_seed") is not None for record in kept)
    return "count as wrong" + (", or with sampling_seed were replaced by a random choice" if sampled else "")


def hardware(record: Record) -> str:
    """Return the device of a run as text."""
    environment = record.environment
    if environment.gpu:
        count = environment.processes or 1
        several = f"{count} × {environment.gpu}" + (", layers divided" if environment.sharded else "")
        return environment.gpu if count == 1 else several
    threads = environment.threads
    return (environment.cpu or "unknown CPU") + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")


def where_measured(record: Record) -> str:
    """Return the device, dtype, model and sizes of a speed measurement as text."""
    device = hardware(record)
    setting = record.speed.setting if record.speed else None
    if setting is None:
        return f"{device}, {record.backbone.dtype} ({record.model})"
    clock = ", ratios of CPU time" if record.speed and record.speed.clock == "cpu" else ""
    return (
        f"{device}, {record.backbone.dtype}{', compiled' if setting.compiled else ''}{clock} ({record.model}: "
        f"{setting.text_length} text tokens, batch {setting.train_batch} in training and {setting.eval_batch} in "
        f"inference, {setting.new_tokens} new token{'s' if setting.new_tokens != 1 else ''})"
    )


def _by(records: Iterable[Record], key: Callable[[Record], T]) -> dict[T, list[Record]]:
    groups: dict[T, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(groups)


def _newest(records: Sequence[Record]) -> datetime:
    return max(record.created for record in records)


def count_runs(count: int) -> str:
    """Return a number of runs as text: `1 run`, `2 runs`."""
    return f"{count} run{'s' if count != 1 else ''}"
