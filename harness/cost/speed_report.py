"""From a speed measurement to records, and from its records to one object."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.backbone.machine import gpu_name
from harness.cost.contestants import Contestant
from harness.cost.goals import Verdict
from harness.cost.plan import TABLE, SpeedPlan
from harness.cost.speed import Measurement
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
from harness.report.paper import layout
from harness.run.outcome import NOT_REPORTED, describe_backbone

ESTIMATES = ("layer_s", "whole_s")
"""Fields of a row that are estimated, not measured."""
NOT_PARTS = "a speed measurement times batches alone"
"""Why a record of a speed measurement has no times of a run's parts."""


def make_records(plan: SpeedPlan, found: Measurement) -> list[Record]:
    """Return one record per contestant.

    A plain reading is recorded as the variant `plain` of its method, and the yardstick under its own name.
    """
    info = describe_backbone(found.backbone, plan.spec)
    return [_record(contestant, plan, found, info) for contestant in found.contestants]


def write_records(records: Sequence[Record], results_dir: Path) -> list[Record]:
    """Write the records. Each one replaces the record of an equal measurement on equal hardware.

    Returns:
        The records that were not written, because they would have replaced a better one: they were measured on a busy
        machine and it was not, or they were stopped and it is complete.
    """
    refused = []
    for record in records:
        before = find_record(results_dir, record.spec_hash)
        if before is not None and _lacks(record) > _lacks(before):
            refused.append(record)
        else:
            write_record(record, results_dir)
    return refused


def _lacks(record: Record) -> tuple[bool, bool]:
    """Return whether a record is incomplete, then whether it is of a busy machine. The greater, the worse."""
    return record.status != "completed", record.speed is not None and record.speed.loaded


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
    ending: dict[str, Any] = {}
    if found.stop is not None:
        ending = {"status": "interrupted", "error": "interrupted in the inference, which has no times"}
    return Record(
        **identity,
        **ending,
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
