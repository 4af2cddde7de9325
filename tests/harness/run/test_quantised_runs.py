"""What identifies a run: the quantisation is part of it, and without one the identity is what it was before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.backbone import quantised
from harness.backbone.machine import Machine
from harness.config.plan import RunPlan
from harness.config.presets import PRESETS, resolve_spec
from harness.config.recipe import TrainRecipe
from harness.errors import UserError
from harness.records import BackboneInfo, Data, read_records, record_path, spec_hash
from harness.report.tables import leaderboard
from harness.run.checks import PlanChecks
from harness.run.predict import load_adapter
from harness.run.setup import Setup
from tests.command_line import Run


class FixedRecipe(TrainRecipe):
    """A recipe whose fields never change, whatever the recipes of runs get."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {"epochs": 2.0, "batch_size": 4, "base_lr": 0.01, "protocol": "uniform"}


def spec_of(info: BackboneInfo) -> dict[str, Any]:
    """Return what identifies a fixed run on this backbone, as a run asks for it."""
    data = Data(name="mini", data_hash="a" * 64, files={}, split_sizes={"train": 8})
    task: Any = SimpleNamespace(name="scienceqa", data=lambda recipe: data)
    machine = Machine(torch.device("cpu"), torch.float32)
    setup = Setup(PRESETS["tiny"], task, machine, 0.0, Path("results"))
    setup._info = info
    return setup.spec_of(RunPlan("memvp", None, None, FixedRecipe.model_construct(), seed=3))


def info(**more: Any) -> BackboneInfo:
    """Return the `backbone` section of a record."""
    sizes = {"hidden_size": 32, "num_layers": 4, "vision_layers": 4}
    hashes = {"weights": "shipped", "weight_hash": "b" * 64, "dtype": "float32"}
    return BackboneInfo.model_validate({"llm": "tiny-llm", "clip": "tiny-clip", **sizes, **hashes, **more})


def test_without_quantisation_a_run_is_identified_as_before_there_was_one() -> None:
    """The number was computed by the code before the option. Records made by it must not be made again."""
    spec = spec_of(info())
    assert "quantize" not in spec["backbone"] and "quantize" not in info().model_dump_json()
    assert spec_hash(spec) == "48740cddb081fdc3"


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_a_quantisation_is_part_of_the_identity(quantize: str) -> None:
    spec = spec_of(info(quantize=quantize))
    assert spec["backbone"]["quantize"] == quantize
    assert spec_hash(spec) != spec_hash(spec_of(info()))
    assert BackboneInfo.model_validate_json(info(quantize=quantize).model_dump_json()).quantize == quantize


def test_a_captured_step_is_refused() -> None:
    task: Any = SimpleNamespace(evaluation_size=lambda recipe: 1, require_answerable=lambda recipe, tokenizer: None)
    checks = PlanChecks(resolve_spec("tiny", quantize="4bit"), task, Machine(torch.device("cuda"), torch.bfloat16))
    with pytest.raises(UserError, match="--set captured=true: a quantised model is not captured; leave it out"):
        checks(RunPlan("memvp", None, None, TrainRecipe(captured=True), seed=0))


@pytest.mark.slow
def test_a_whole_run_in_4_bits_on_a_cpu(
    call: Run, base: list[str], small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    """It is trained, scored, recorded as a model of its own, made again, and its adapter answers."""
    pytest.importorskip("bitsandbytes", reason="the extra `quantize` is not installed")
    results = tmp_path / "results"
    options = [*base, "--methods", "memvp", "--eval-every", "1"]
    assert call(*options).code == 0
    done = call(*options, "--quantize", "4bit")
    assert done.code == 0, done.out + done.err
    plain, packed = sorted(read_records(results), key=lambda record: record.created)
    assert (packed.model, packed.backbone.quantize) == (f"{plain.model}-4bit", "4bit")
    assert packed.parameters == plain.parameters and packed.environment.versions["bitsandbytes"]
    assert "bitsandbytes" not in plain.environment.versions and plain.backbone.quantize is None
    assert packed.loss is not None and plain.loss is not None and packed.loss != plain.loss
    assert packed.loss.first == pytest.approx(plain.loss.first, rel=0.2)
    # No table mixes them.
    rows = {row.model: row for row in leaderboard([plain, packed], 1).rows if row.method == "memvp"}
    assert [rows[record.model].runs for record in (plain, packed)] == [(plain,), (packed,)]
    # The record says how to make it again, and the adapter which backbone it needs.
    own = tmp_path / "own.toml"
    own.write_text(call("records", "config", record_path(packed, results)).out)
    assert 'quantize = "4bit"' in own.read_text()
    folders = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", mini_set, "--results", results]
    assert "already recorded" in call("run", "--config", own, *folders, "--eval-every", "1").out
    parts = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", mini_set]
    again = call("verify", record_path(packed, results), *parts)
    assert again.code == 0 and again.out.startswith("identical"), again
    adapters = [path.parent for path in (results / "adapters").rglob("adapter_model.safetensors")]
    (adapter,) = (folder for folder in adapters if packed.spec_hash in folder.name)
    assert load_adapter(adapter).answer("which colour is it?", choices=["red", "blue"]).raw


def test_without_the_package_nothing_starts(call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    base[base.index("--data-root") + 1] = "nowhere"
    done = call(*base, "--quantize", "4bit")
    assert done.code == 2 and done.err.count("\n") == 1
    assert done.err.startswith("error: --quantize 4bit: needs the package bitsandbytes")
    every = call(*base, "--quantize", "4bit", "--dry-run")
    assert every.code == 2 and "missing: --quantize 4bit: needs" in every.out and "missing: nowhere" in every.out
    assert call("run", "--quantize", "2bit").err.startswith("error: --quantize 2bit: not supported")
