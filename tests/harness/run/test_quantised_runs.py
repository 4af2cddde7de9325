"""What identifies a run: the quantisation is part of it, and without one the identity is what it was before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.backbone.machine import Machine
from harness.config.plan import RunPlan
from harness.config.presets import PRESETS, resolve_spec
from harness.config.recipes import TrainRecipe
from harness.errors import UserError
from harness.records import BackboneInfo, Data, spec_hash
from harness.run.checks import PlanChecks
from harness.run.runner import Runner


class FixedRecipe(TrainRecipe):
    """A recipe whose fields never change, whatever the recipes of runs get."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {"epochs": 2.0, "batch_size": 4, "base_lr": 0.01, "protocol": "uniform"}


def spec_of(info: BackboneInfo) -> dict[str, Any]:
    """Return what identifies a fixed run on this backbone, as a runner asks for it."""
    data = Data(name="mini", data_hash="a" * 64, files={}, split_sizes={"train": 8})
    task: Any = SimpleNamespace(name="scienceqa", data=lambda recipe: data)
    machine = Machine(torch.device("cpu"), torch.float32)
    runner = Runner(PRESETS["tiny"], task, machine, 0.0, Path("results"))
    runner._info = info
    return runner.spec_of(RunPlan("memvp", None, None, FixedRecipe.model_construct(), seed=3))


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
