"""A speed measurement as records, and as text."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch
from tabulate import tabulate

from harness.cost.contestants import Contestant
from harness.cost.plan import TABLE, SpeedPlan
from harness.cost.speed import Measurement
from harness.errors import UserError
from harness.records import (
    BackboneInfo,
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
"""Fields of a row that are not measured."""
NOT_PARTS = "a speed measurement times batches alone"
SPREAD = """
Ratios: median over pairs of one round (95 % confidence interval of the median, from six rounds on) [p10, p90].
"""


def make_records(plan: SpeedPlan, found: Measurement) -> list[Record]:
    """One record for each contestant; the plain readings are a variant, the yardstick has a name of its own."""
    info = describe_backbone(found.backbone, plan.spec)
    return [_record(contestant, plan, found, info) for contestant in found.contestants]


def write_records(records: Sequence[Record], results_dir: Path) -> list[Record]:
    """Write the records; each replaces that of an equal measurement on equal hardware.

    Returns:
        Those that were not written: made on a loaded machine, where one of a quiet machine is there.
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
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    environment = collect_environment(gpu=gpu, threads=torch.get_num_threads(), method=contestant.method)
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
    """Random batches are made by their sizes: these are what is hashed."""
    text = json.dumps(setting.model_dump(mode="json"), sort_keys=True)
    return Data(name="random-batches", data_hash=sha256(text.encode()).hexdigest(), files={}, split_sizes={})


def _cpu_mhz() -> float | None:
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return frequency.current if frequency else None


def report_json(records: Sequence[Record]) -> dict[str, Any]:
    """`{device, dtype, preset, …, rows: [{method, phase, implementation, median_s, …}]}` of one measurement."""
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
    """The median under `name`; where there is one, its confidence interval and the deciles beside it."""
    if ratio is None:
        return {name: None}
    beside = ratio.model_dump(mode="json", exclude={"median"})
    return {name: ratio.median, **{f"{prefix}_{key}": value for key, value in beside.items()}}


def _with_spread(row: Mapping[str, Any], name: str, prefix: str) -> str:
    if row[name] is None:
        return "n/a"
    low, high, p10, p90 = (row[f"{prefix}_{key}"] for key in ("ci_low", "ci_high", "p10", "p90"))
    known = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{row[name]:.3f}{known} [{p10:.3f}, {p90:.3f}]"


def report_text(records: Sequence[Record], format: str) -> str:
    """One measurement as text, ending in a newline.

    Args:
        records: from `make_records`.
        format: markdown or json.

    Raises:
        UserError: no such format.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"--format {format}: unknown; choose markdown or json")
    report = report_json(records)
    if format == "json":
        return json.dumps(report, indent=2) + "\n"
    names = method_names()
    baseline = names.get(layout(TABLE).baseline or "", "baseline")
    body = [
        (
            names.get(row["method"], row["method"]),
            row["implementation"],
            row["phase"],
            *(f"{row[key]:.4f}" for key in ("median_s", "p10_s", "p90_s")),
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
        f"/ {baseline}",
        "/ bare towers",
        "tokens/s",
        "images/s",
        "peak GiB",
        "utilisation",
    )
    table = tabulate(body, heads, tablefmt="github", disable_numparse=True, colalign=["left"] * 3 + ["right"] * 9)
    return f"**{_title(report)}**\n\n{table}\n{SPREAD}{_estimates(report)}{_warning(report)}"


def _title(report: dict[str, Any]) -> str:
    return (
        f"Seconds a batch of {report['preset']} on {report['device']}, {report['dtype']}, {report['threads']} threads; "
        f"text {report['text_length']}, {report['new_tokens']} new tokens, batch {report['train_batch']} in training "
        f"and {report['eval_batch']} in inference{', compiled' if report['compiled'] else ''}"
    )


def _estimates(report: dict[str, Any]) -> str:
    rows = [row for row in report["rows"] if row["layer_s"] is not None]
    if not rows:
        return ""
    body = [
        (row["method"], row["implementation"], row["phase"], f"{row['layer_s']:.4f}", f"{row['whole_s']:.3f}")
        for row in sorted(rows, key=lambda row: row["phase"], reverse=True)
    ]
    heads = ("method", "implementation", "phase", "s a decoder layer", "s/batch of the whole")
    aligned = ["left"] * 3 + ["right"] * 2
    table = tabulate(body, heads, tablefmt="github", disable_numparse=True, colalign=aligned)
    return f"\n**Estimates, not measured: the whole model from this many layers and twice as many**\n\n{table}\n"


def _warning(report: dict[str, Any]) -> str:
    if not report["loaded"]:
        return ""
    load = "unknown" if report["load_average"] is None else f"{report['load_average']:.1f}"
    return (
        f"\nThe machine was doing other work (load average {load} before, {report['cpu_s_per_s']:.2f} CPU seconds a "
        f"second on {report['threads']} threads): these times enter no table.\n"
    )
