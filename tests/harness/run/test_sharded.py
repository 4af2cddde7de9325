"""Two processes that divide the frozen decoder layers among them: the run of one process, with half of the layers."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import UserError
from harness.processes import FSDP
from harness.records import Record, read_records
from harness.run import sharded
from harness.run.sharded import CONFIGURATION, SETTINGS, require_shardable
from tests import command_line
from tests.command_line import quick_run
from tests.forked import call_in_two
from tests.harness.run.test_processes import NO_DROPOUT, history, launch

HELD = re.compile(r"the first one ([\d,]+) of ([\d,]+) bytes")


LAUNCHER = (
    *("-m", "accelerate.commands.launch", "--config_file", CONFIGURATION, "--num_processes", "2"),
    *("--main_process_port", "0", "-m", "harness"),
)


def make_run(arguments: list[str], processes: int) -> str:
    """Make a run in this process, or in two that divide the layers, and return what it printed."""
    if processes == 1:
        done = command_line.call(*arguments, "--threads", "1")
        code, out = done.code, done.out
    else:
        process = launch(arguments, LAUNCHER)
        out, _ = process.communicate(timeout=500)
        code = process.returncode
    assert code == 0, out
    return out


def fail_in_second_pass(failing: str) -> None:
    """Let the second pass of training fail in the process with this number."""
    passes, add_gradients = [], sharded.add_gradients

    def second_pass_fails(*arguments: Any) -> Any:
        passes.append(arguments)
        if os.environ["RANK"] == failing and len(passes) == 2:
            raise RuntimeError("no luck")
        return add_gradients(*arguments)

    sharded.add_gradients = second_pass_fails


def test_other_settings_of_the_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {FSDP: "true", "WORLD_SIZE": "2", **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    require_shardable(None, 2)
    with pytest.raises(UserError, match=r"--quantize 4bit: quantised layers are not divided"):
        require_shardable("4bit", 2)
    with pytest.raises(UserError, match=r"--micro-batch: processes that share the layers cannot find it"):
        require_shardable(None, None)
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match=r"FSDP_VERSION is 1, not 2; give --config_file configs/accelerate/fsdp\.yaml"):
        require_shardable(None, 2)
    monkeypatch.delenv(FSDP)
    require_shardable("4bit", None)


@pytest.mark.slow
def test_two_processes_that_divide_the_layers_make_the_run_of_one(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    found: list[tuple[Record, Any, dict[str, Tensor]]] = []
    for count in (1, 2):
        results = tmp_path / str(count)
        arguments = [*quick_run(small_llm, small_clip, mini_set, results), "--methods", "dehvf,memvp", *NO_DROPOUT]
        # With micro-batches of two, one process has three passes in a step of nine and the other has two.
        arguments[arguments.index("batch_size=4")] = "batch_size=9"
        arguments += ["--micro-batch", "2"]
        out = make_run(arguments, count)
        if count == 2:
            shares = [(int(own.replace(",", "")), int(whole.replace(",", ""))) for own, whole in HELD.findall(out)]
            assert len(shares) == 2 and all(0.5 <= own / whole < 0.55 for own, whole in shares), shares
        for record in sorted(read_records(results), key=lambda record: record.method):
            (adapter,) = results.rglob(f"adapters/**/{record.method}/**/*.safetensors")
            found.append((record, history(results, record.method), load_file(adapter)))
        assert {record.environment.sharded for record in read_records(results)} == {count == 2}
    for (one, curve, adapter), (two, curve_of_two, adapter_of_two) in zip(found[:2], found[2:], strict=True):
        assert (one.environment.processes, two.environment.processes) == (1, 2)
        assert one.spec_hash == two.spec_hash and one.steps == two.steps == 3
        assert one.metrics == two.metrics
        for mine, theirs in zip(curve["points"], curve_of_two["points"], strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert adapter.keys() == adapter_of_two.keys()  # the trained parameters alone, and whole
        assert all(adapter_of_two[name].allclose(value, atol=1e-4) for name, value in adapter.items())


@pytest.mark.slow
def test_a_pass_that_fails_in_one_process_ends_all_and_the_next_command_goes_on(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    kept: list[dict[str, Tensor]] = []
    # Every process makes one pass per step.
    options = ["--methods", "memvp", *NO_DROPOUT, "--micro-batch", "2", "--checkpoint-minutes", "0", "--threads", "1"]
    divided = {FSDP: "true", **SETTINGS}
    for count in (1, 2):
        results = tmp_path / str(count)
        arguments = [*quick_run(small_llm, small_clip, mini_set, results), *options]
        for step, rank in ((1, "1"), (2, "0")) if count == 2 else ():
            failing = partial(fail_in_second_pass, rank)
            code, out = call_in_two(arguments, tmp_path / f"{rank}.log", failing, **divided)
            assert code != 0
            assert f"process {rank} of 2: RuntimeError: no luck; all processes end" in out, out
            (record,) = read_records(results)
            assert (record.steps, record.environment.sharded) == (step, True)
            assert record.status == "failed" if rank == "0" else record.status in ("failed", "interrupted")
            if rank == "0":
                assert str(record.error).startswith("RuntimeError: no luck; all processes end")
        if count == 1:
            assert command_line.call(*arguments).code == 0
        else:
            code, out = call_in_two(arguments, tmp_path / "last.log", **divided)
            assert code == 0 and "memvp seed 0: resuming after optimiser step 2" in out, out
        (record,) = read_records(results)
        assert (record.status, record.steps) == ("completed", 3)
        (adapter,) = results.rglob("adapters/**/*.safetensors")
        kept.append(load_file(adapter))
    one, two = kept
    assert one.keys() == two.keys()
    assert all(two[name].allclose(value, atol=1e-4) for name, value in one.items())


@pytest.mark.slow
def test_prompts_in_the_attention_of_divided_layers_make_the_run_of_one(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    """LLaMA-Adapter projects its prompts with frozen weights, which a process has only while their layer runs."""
    kept: list[tuple[Record, dict[str, Tensor]]] = []
    for count in (1, 2):
        results = tmp_path / str(count)
        arguments = [*quick_run(small_llm, small_clip, mini_set, results), "--methods", "llama_adapter"]
        arguments += ["--micro-batch", "2"]
        make_run(arguments, count)
        (record,) = read_records(results)
        (adapter,) = results.rglob("adapters/**/*.safetensors")
        kept.append((record, load_file(adapter)))
    (one, adapter), (two, adapter_of_two) = kept
    assert (one.environment.sharded, two.environment.sharded) == (False, True)
    assert one.spec_hash == two.spec_hash and one.metrics == two.metrics
    assert all(adapter_of_two[name].allclose(value, atol=1e-4) for name, value in adapter.items())
