"""Records for the tests of what is built from records."""

from datetime import UTC, datetime, timedelta
from itertools import count

from harness.records import Record, collect_environment, spec_hash

NINE = ["NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg"]
OFFICIAL = {"train": 12726, "val": 4241, "test": 4241}
NULLABLE = ("parse_failures", "truncated", "parameters", "times_s", "steps", "epochs", "loss", "peak_memory_bytes")
_serial = count()


def make(method="memvp", seed=0, value=50.0, model="tiny", *, backbone=None, data=None, **changes) -> Record:
    """A completed record; each call is newer than the last."""
    serial = next(_serial)
    metrics = {key: {"value": value, "n": 1000, "stderr": 1.0} for key in NINE}
    base = {
        "spec_hash": spec_hash({"serial": serial}),
        "created": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=serial),
        "method": method,
        "model": model,
        "task": "scienceqa",
        "seed": seed,
        "config": {"lr": 1e-3},
        "data": {
            "name": "scienceqa" if model != "tiny" else "scienceqa-mini",
            "data_hash": "0" * 64,
            "files": {},
            "split_sizes": OFFICIAL if model != "tiny" else {"train": 3600, "val": 500, "test": 1000},
        }
        | (data or {}),
        "backbone": {
            "llm": f"some/{model}",
            "clip": "vit",
            "weights": "pretrained",
            "weight_hash": "1" * 64,
            "hidden_size": 8,
            "num_layers": 4,
            "vision_layers": 4,
            "dtype": "float32",
        }
        | (backbone or {}),
        "metrics": metrics,
        "parameters": {"trainable": 90, "paper_convention": 3_879_040, "total": 10**9, "by_module": {}},
        "environment": collect_environment(threads=1),
        "git": {"commit": "a" * 40, "dirty": False},
        "missing": {key: "not in this test" for key in NULLABLE if key != "parameters"},
    }
    record = base | changes
    if record.get("kind") in ("oracle", "speed"):
        unused = {
            "oracle": ("steps", "epochs", "loss"),
            "speed": ("parse_failures", "truncated", "steps", "epochs", "loss"),
        }
        record["missing"] = {k: v for k, v in record["missing"].items() if k not in unused[record["kind"]]}
        if record["kind"] == "oracle":
            record["parameters"] = None
    if record.get("status", "completed") != "completed":
        record |= {"error": "boom", "metrics": {}}
    return Record(**record)


def speed(method, train, inference, loaded=False, **changes) -> Record:
    def timing(median):
        return {"median_s": median, "p10_s": median, "p90_s": median, "n": 20}

    section = {"phases": {"train": timing(train), "inference": timing(inference)}, "loaded": loaded}
    weights = {"weights": "random"}
    return make(method, kind="speed", model="7b", metrics={}, speed=section, backbone=weights, **changes)
