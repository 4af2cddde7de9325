"""Make records for tests: the fields of a valid record, and complete records for tables."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from harness.records import Record, collect_environment, spec_hash

NINE = ["NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg"]
OFFICIAL = {"train": 12726, "val": 4241, "test": 4241}
WHY = {
    key: "not measured in this test"
    for key in ("parse_failures", "truncated", "parameters", "times_s", "steps", "epochs", "loss", "peak_memory_bytes")
}
"""Reasons for everything that `fields` leaves out."""
_UNUSED = {
    "oracle": ("steps", "epochs", "loss"),
    "speed": ("parse_failures", "truncated", "steps", "epochs", "loss"),
}
"""Kind of record -> entries of `WHY` that a record of this kind must leave out."""
_serial = count()


def fields(**changes: Any) -> dict[str, Any]:
    """Return the fields of a small completed record, with `changes`."""
    base = {
        "spec_hash": spec_hash({"method": "memvp", "seed": 0}),
        "method": "memvp",
        "model": "tiny",
        "task": "scienceqa",
        "seed": 0,
        "config": {"recipe": {"lr": 1e-5, "betas": [0.9, 0.95]}},
        "data": {
            "name": "scienceqa-mini",
            "data_hash": "0" * 64,
            "files": {"problems.json": "1" * 64},
            "split_sizes": {"train": 3, "val": 2, "test": 2},
        },
        "backbone": {
            "llm": "tiny",
            "clip": "tiny",
            "weights": "shipped",
            "weight_hash": "2" * 64,
            "hidden_size": 128,
            "num_layers": 8,
            "vision_layers": 8,
            "dtype": "float32",
        },
        "metrics": {"IMG": {"value": 50.0, "n": 2, "stderr": 35.4}},
        "environment": collect_environment(threads=1),
        "git": {"commit": "a" * 40, "dirty": False},
        "missing": WHY,
    }
    return base | changes


def make(
    method: str = "memvp",
    seed: int = 0,
    value: float = 50.0,
    model: str = "tiny",
    *,
    backbone: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """Return a completed record with one value in all nine columns, newer than that of the previous call.

    Args:
        method, seed, model: what was run. Models other than `tiny` get the official data set.
        value: accuracy in every column.
        backbone, data: changes inside these sections.
        changes: other fields.
    """
    serial = next(_serial)
    base = fields()
    official = model != "tiny"
    record = base | {
        "spec_hash": spec_hash({"serial": serial}),
        "created": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=serial),
        "method": method,
        "model": model,
        "seed": seed,
        "config": {"lr": 1e-3},
        "data": base["data"]
        | {
            "name": "scienceqa" if official else "scienceqa-mini",
            "files": {},
            "split_sizes": OFFICIAL if official else {"train": 3600, "val": 500, "test": 1000},
        }
        | (data or {}),
        "backbone": base["backbone"] | {"llm": f"some/{model}", "weights": "pretrained"} | (backbone or {}),
        "metrics": {key: {"value": value, "n": 1000, "stderr": 1.0} for key in NINE},
        "parameters": {"trainable": 90, "paper_convention": 3_879_040, "total": 10**9, "by_module": {}},
        "missing": {key: why for key, why in WHY.items() if key != "parameters"},
    }
    record |= changes
    kind = record.get("kind", "train")
    absent = {*_UNUSED.get(kind, ()), *changes}
    record["missing"] = {key: why for key, why in record["missing"].items() if key not in absent}
    if kind == "oracle":
        record["parameters"] = None
    if record.get("status", "completed") != "completed":
        record |= {"error": "boom", "metrics": {}}
    return Record(**record)


def speed(method: str, train: float, inference: float, loaded: bool = False, **changes: Any) -> Record:
    """Return a record of times at `7b`, in seconds per batch."""

    def timing(median: float) -> dict[str, float]:
        return {"median_s": median, "p10_s": median, "p90_s": median, "n": 20}

    section = {"phases": {"train": timing(train), "inference": timing(inference)}, "loaded": loaded}
    backbone = {"weights": "random", **changes.pop("backbone", {})}
    return make(method, kind="speed", model="7b", metrics={}, speed=section, backbone=backbone, **changes)
