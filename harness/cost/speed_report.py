"""From a speed measurement to records, and from its records to text."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.backbone.machine import gpu_name
from harness.cost.contestants import Contestant
from harness.cost.goals import Verdict
from harness.cost.output import is_json, markdown_table
from harness.cost.plan import TABLE, SpeedPlan
from harness.cost.speed import Measurement
from harness.escape import markdown
from harness.records import (
    BackboneInfo,
    Clock,
    Data,
    PeakMemory,
    Record,
    Speed,
    SpeedSetting,
    Spread,
    Timing,
    collect_environment,
    collect_git,
    find_record,
    spec_hash,
    write_record,
)
from harness.report.paper import layout, method_names
from harness.run.outcome import NOT_REPORTED, describe_backbone

ESTIMATES = ("layer_s", "whole_s")
"""Fields of a row that are estimated, not measured."""
NOT_PARTS = "a speed measurement times batches alone"
"""Why a record of a speed measurement has no times of a run's parts."""
LEGEND = """
A ratio divides two {clock} times of the same round; the table gives the median over the rounds. The 95 % confidence
interval of the median follows in parentheses if there are at least six rounds. The 10th and 90th percentiles follow in
brackets.
"""
CLOCKS: dict[Clock, str] = {"cpu": "CPU", "wall": "wall-clock"}
"""Names of the clocks in a report."""


def make_records(plan: SpeedPlan, found: Measurement) -> list[Record]:
    """Return one record per contestant.

    A plain reading is recorded as the variant `plain` of its method, and the yardstick under its own name.
    """
    info = describe_backbone(found.backbone, plan.spec)
    return [_record(contestant, plan, found, info) for contestant in found.contestants]


def write_records(records: Sequence[Record], results_dir: Path) -> list[Record]:
    """Write the records. Each one replaces the record of an equal measurement on equal hardware.

    Returns:
        The records that were not written, because they were measured on a busy machine and would have replaced a record
        from a machine that was not busy.
    """
    refused = []
    for record in records:
        before = find_record(results_dir, record.spec_hash)
        if _is_loaded(record) and before is not None and not _is_loaded(before):
            refused.append(record)
        else:
            write_record(record, results_dir)
    return refused


def _is_loaded(record: Record) -> bool:
    return record.speed is not None and record.speed.loaded


def _record(contestant: Contestant, plan: SpeedPlan, found: Measurement, info: BackboneInfo) -> Record:
    device = plan.machine.device
    environment = collect_environment(gpu=gpu_name(device), threads=torch.get_num_threads(), method=contestant.method)
    variant = "plain" if contestant.implementation == "plain" else None
    setting = SpeedSetting(**vars(plan.work), compiled=plan.compiled)
    config = {
        "method": {} if contestant.plan is None else contestant.plan.resolved()["method"],
        "speed": {**setting.model_dump(mode="json"), "steps": plan.steps},
    }
    identity: dict[str, Any] = {
        "method": contestant.method,
        "variant": variant,
        "model": plan.spec.name,
        "task": layout(TABLE).task,
    }
    machine: list[Any] = [environment.gpu or environment.cpu, environment.threads]
    timings = found.timings[contestant.key]
    # Records keep these texts, so do not reword them.
    missing = {f"times_s.{name}": NOT_PARTS for name in ("load", "data", "train", "eval", "scoring")}
    missing |= {f"times_s.train_step_{name}": "under speed.phases.train" for name in ("median", "p90")}
    missing |= {f"peak_memory_bytes.{name}": "by phase, under speed.phases" for name in PeakMemory.model_fields}
    if contestant.parameters is None:
        missing["parameters"] = "the yardstick has no adapter"
    if environment.cpu is None:
        missing["environment.cpu"] = NOT_REPORTED
    return Record(
        **identity,
        kind="speed",
        spec_hash=spec_hash(
            {**identity, "config": config, "backbone": info.model_dump(mode="json"), "machine": machine}
        ),
        seed=0,
        config=config,
        data=_random_data(setting),
        backbone=info,
        parameters=contestant.parameters,
        speed=Speed(
            phases=dict(timings),
            loaded=found.loaded,
            implementation=contestant.implementation,
            setting=setting,
            clock=found.clock,
            processes=plan.processes,
            cpu_s_per_s=found.cpu_s_per_s,
            load_average=found.load_average,
            cpu_mhz=_cpu_mhz(),
            gpu_mhz=found.gpu_mhz,
            matmul_flops_per_s=found.matmul_flops_per_s,
        ),
        environment=environment,
        git=collect_git(),
        missing=missing,
    )


def _random_data(setting: SpeedSetting) -> Data:
    """Return the data of the record. Random batches depend only on their sizes, so the sizes are hashed."""
    text = json.dumps(setting.model_dump(mode="json"), sort_keys=True)
    return Data(name="random-batches", data_hash=sha256(text.encode()).hexdigest(), files={}, split_sizes={})


def _cpu_mhz() -> float | None:
    """Return the present clock of the CPU; None where it is not reported."""
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return frequency.current if frequency else None


def report_json(records: Sequence[Record], verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
    """Return one measurement as an object.

    Its form is `{device, dtype, preset, …, goals: [{goal, ratio, …}], rows: [{method, phase, implementation, median_s,
    …}]}`.

    Args:
        records: all records of the measurement, from `make_records`.
        verdicts: the goals and their ratios.
    """
    first = records[0]
    assert first.speed is not None and first.speed.setting is not None
    about = first.speed.model_dump(mode="json", exclude={"phases", "implementation", "setting"})
    return {
        "device": first.environment.gpu or first.environment.cpu,
        "dtype": first.backbone.dtype,
        "preset": first.model,
        "threads": first.environment.threads,
        **first.speed.setting.model_dump(mode="json"),
        **about,
        "estimates": list(ESTIMATES),
        "goals": [
            {"goal": str(one.goal), "result": one.result, "limit": one.goal.limit, **_flat(one.ratio, "ratio", "ratio")}
            for one in verdicts
        ],
        "rows": [
            _row(record, phase, timing)
            for record in records
            if record.speed is not None
            for phase, timing in record.speed.phases.items()
        ],
    }


def _row(record: Record, phase: str, timing: Timing) -> dict[str, Any]:
    assert record.speed is not None
    values = timing.model_dump(mode="json", exclude={"ratio", "ratio_to_yardstick"})
    return {
        "method": record.method,
        "phase": phase,
        "implementation": record.speed.implementation,
        **values,
        **_flat(timing.ratio, "ratio_to_baseline", "ratio"),
        **_flat(timing.ratio_to_yardstick, "ratio_to_yardstick", "ratio_to_yardstick"),
    }


def _flat(ratio: Spread | None, name: str, prefix: str) -> dict[str, float | None]:
    """Return the median under `name`; if it is known, also its confidence interval and percentiles under `prefix`."""
    if ratio is None:
        return {name: None}
    beside = ratio.model_dump(mode="json", exclude={"median"})
    return {name: ratio.median, **{f"{prefix}_{key}": value for key, value in beside.items()}}


def _with_spread(row: Mapping[str, Any], name: str, prefix: str) -> str:
    """Return a ratio as `median (confidence interval) [percentiles]`, or `n/a`."""
    if row[name] is None:
        return "n/a"
    low, high, p10, p90 = (row[f"{prefix}_{key}"] for key in ("ci_low", "ci_high", "p10", "p90"))
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{row[name]:.3f}{interval} [{p10:.3f}, {p90:.3f}]"


def report_text(records: Sequence[Record], format: str, verdicts: Sequence[Verdict] = ()) -> str:
    """Return one measurement as text, ending in a newline.

    Args:
        records: all records of the measurement, from `make_records`.
        verdicts: the goals and their ratios.
        format: `markdown` or `json`.

    Raises:
        UserError: the format is unknown.
    """
    as_json = is_json(format)
    report = report_json(records, verdicts)
    if as_json:
        return json.dumps(report, indent=2) + "\n"
    names = method_names()
    baseline = names.get(layout(TABLE).baseline or "", "baseline")
    body = [
        (
            names.get(row["method"], row["method"]),
            row["implementation"],
            row["phase"],
            *(f"{row[key]:.4f}" for key in ("median_s", "p10_s", "p90_s")),
            "n/a" if row["cpu_s"] is None else f"{row['cpu_s']:.4f}",
            _with_spread(row, "ratio_to_baseline", "ratio"),
            _with_spread(row, "ratio_to_yardstick", "ratio_to_yardstick"),
            f"{row['tokens_per_s']:,.0f}",
            f"{row['images_per_s']:,.1f}",
            "n/a" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**30:.2f}",
            "n/a" if row["utilisation"] is None else f"{row['utilisation']:.1%}",
        )
        for row in sorted(report["rows"], key=lambda row: row["phase"], reverse=True)
    ]
    heads = (
        "method",
        "implementation",
        "phase",
        "s/batch",
        "p10",
        "p90",
        "CPU s/batch",
        f"/ {baseline}",
        "/ bare towers",
        "tokens/s",
        "images/s",
        "peak GiB",
        "utilisation",
    )
    table = markdown_table(heads, body, "lllrrrrrrrrrr")
    legend = LEGEND.format(clock=CLOCKS[report["clock"]])
    return f"**{markdown(_title(report))}**\n\n{table}\n{legend}{_goals(report)}{_estimates(report)}{_warning(report)}"


def _title(report: dict[str, Any]) -> str:
    processes = f" of {report['processes']} processes" if report["processes"] > 1 else ""
    return (
        f"Seconds per batch of {report['preset']} on {report['device']}, {report['dtype']}, "
        f"{report['threads']} threads; "
        f"{report['text_length']} text tokens, {report['new_tokens']} new tokens, batch {report['train_batch']} in "
        f"training and {report['eval_batch']} in inference{', compiled' if report['compiled'] else ''}; "
        f"{report['rows'][0]['n']} rounds{processes}"
    )


def _goals(report: dict[str, Any]) -> str:
    """Return the table of goals; empty if there are none."""
    if not report["goals"]:
        return ""
    body = []
    for row in report["goals"]:
        ratio, _, limit = row["goal"].partition("=")
        body.append((ratio, _with_spread(row, "ratio", "ratio"), limit, row["result"]))
    table = markdown_table(("goal", "measured", "at most", "result"), body, "lrrl")
    return f"\n**Goals** (undecided: the confidence interval contains the limit, or there is none)\n\n{table}\n"


def _estimates(report: dict[str, Any]) -> str:
    """Return the table of estimates; empty if the backbone is whole."""
    rows = [row for row in report["rows"] if row["layer_s"] is not None]
    if not rows:
        return ""
    body = [
        (row["method"], row["implementation"], row["phase"], f"{row['layer_s']:.4f}", f"{row['whole_s']:.3f}")
        for row in sorted(rows, key=lambda row: row["phase"], reverse=True)
    ]
    heads = ("method", "implementation", "phase", "s a decoder layer", "s/batch of the whole")
    table = markdown_table(heads, body, "lllrr")
    title = "Estimates, not measured: the whole model, from the times of this number of layers and of twice as many"
    return f"\n**{title}**\n\n{table}\n"


def _warning(report: dict[str, Any]) -> str:
    """Return the warning that the machine was busy; empty if it was not."""
    if not report["loaded"]:
        return ""
    load = "unknown" if report["load_average"] is None else f"{report['load_average']:.1f}"
    return (
        f"\nThe machine was busy with other work (load average {load} before the measurement; "
        f"{report['cpu_s_per_s']:.2f} CPU seconds per second on {report['threads']} threads). "
        "These times enter no table.\n"
    )
