"""The measurements of `benchmarks/gpu.sh`: the commands, and the summary of what they measured."""

import argparse
import importlib.util
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle, islice, pairwise
from pathlib import Path

from benchmarks.steps import FILE, Outcome, Step, run_steps
from harness.cost.output import markdown_table
from harness.data.mini.build import build_mini, file_text
from harness.files import write_atomic
from harness.records import Record
from harness.stopping import exit_status, stop_on_signals

OUT = Path(__file__).parent / "out"
SUMMARY = "summary.md"
SMALL_WORLD = (64, 4, 64)
"""Problems for training, validation and test, where no data is given."""
LONGEST = 192
"""Text tokens of a captured step on these problems: a batch is padded to the next multiple of 64."""
HINT_WORDS = range(45, 71)
"""Numbers of words in the hints of these problems. They make a text about as long as one of ScienceQA, so that the
longest text of a batch has between 128 and `LONGEST` tokens."""
REHEARSAL_S = 40.0
"""About how many seconds each step takes in a rehearsal, most of them for imports."""


def steps_for(device: str, data: Path) -> list[Step]:
    """Return all measurements, most valuable first.

    Args:
        device: `cuda` for the size of 7B, `cpu` for a rehearsal with the tiny model.
        data: folder with problems in the layout of ScienceQA.
    """
    real = device != "cpu"
    common = [sys.executable, "-m", "harness"]
    run = [*common, "run", "--weights", "random", "--data-root", str(data), "--device", device]
    run += ["--results", "{results}", "--limit", "64" if real else "4", "--steps", "30" if real else "2"]
    run += ["--model", "7b" if real else "tiny", *([] if real else ["--set", "batch_size=4"])]
    # Without dropout, runs that divide their steps differently have the same losses but for rounding.
    run += ["--set", "memory_dropout=0", "--set", "adapter_dropout=0"]
    speed = [*common, "speed", "--device", device, "--results", "{results}"]
    # Compiling on a CPU takes minutes and shows nothing about a GPU.
    speed += (
        ["--model", "7b", "--compile", "--steps", "10"]
        if real
        else ["--model", "tiny", "--steps", "1", "--train-batch", "1", "--eval-batch", "1"]
    )
    short, long = ("128", "256") if real else ("12", "16")
    # The step of a captured run: its samples in one forward pass, and as many columns.
    whole_step = ["--train-batch", "32" if real else "2", "--text-length", str(LONGEST) if real else short]
    few = ["--micro-batch", "4" if real else "1"]
    eager = ["--set", "captured=false"]  # on a GPU, `run` captures its steps otherwise
    pair = "memvp,dehvf" if real else "memvp"
    # Methods that were never compiled on a GPU: where one fails, the times of the pair are there. MemVP is timed with
    # them because ratios divide times of one round.
    others = "memvp,lavin,llama_adapter,llava_lora" if real else "lavin"
    no_graphs = None if real else "CUDA graphs need a GPU"
    quantised = None if importlib.util.find_spec("bitsandbytes") else "the package bitsandbytes is not installed"
    # `speed` writes its records at its end, so each of its steps is small. Its estimate is loading (25 s), thirteen
    # rounds (2.6 s each for all methods at 256 tokens), and the first compilation of about five regions a model.
    steps = [
        Step("run-eager-4", 120, [*run, "--methods", "memvp", *few, *eager]),
        Step("run-eager-auto", 100, [*run, "--methods", pair, "--micro-batch", "auto", *eager]),
        Step("run-captured", 140, [*run, "--methods", pair, "--set", "captured=true"], no_graphs),
        Step("speed-whole-step", 150, [*speed, "--methods", pair, *whole_step, "--profile", "{profile}"]),
        Step("speed-128", 100, [*speed, "--methods", pair, "--text-length", short]),
        Step("speed-128-others", 110, [*speed, "--methods", others, "--text-length", short]),
        Step("speed-256", 110, [*speed, "--methods", pair, "--text-length", long]),
        Step("speed-256-others", 120, [*speed, "--methods", others, "--text-length", long]),
        Step("run-quantised", 80, [*run, "--methods", "memvp", "--quantize", "4bit", *few], quantised),
    ]
    return steps if real else [replace(step, estimate_s=REHEARSAL_S) for step in steps]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return tables of what the steps measured, in markdown."""
    steps = markdown_table(
        ("step", "status", "seconds", "reason"),
        [(one.name, one.status, f"{one.seconds:.0f}", one.reason) for one in outcomes],
        "llrl",
    )
    runs = [_run_row(one.name, record) for one in outcomes for record in one.records if record.speed is None]
    batches = [row for one in outcomes for record in one.records for row in _speed_rows(one.name, record)]
    heads_of_runs = ("step", "method", "status", "s/step", "p90", "peak GiB", "micro-batch", "first loss", "last loss")
    heads = ("step", "method", "phase", "s/batch", "/ baseline", "/ bare towers", "peak GiB", "utilisation")
    parts = [
        f"## Steps\n\n{steps}",
        f"## Optimiser steps of `run`\n\n{markdown_table(heads_of_runs, runs, 'lllrrrrrr')}" if runs else "",
        f"## Batches of `speed`\n\n{markdown_table(heads, batches, 'lllrrrrr')}" if batches else "",
        *_goals_of_run(outcomes),
        *_equal_losses(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def lengthen(problems: Path) -> None:
    """Give every problem of a generated set a hint of so many words that its text is as long as one of ScienceQA."""
    content = json.loads(problems.read_text(encoding="utf-8"))
    for problem, length in zip(content.values(), cycle(HINT_WORDS), strict=False):
        problem["hint"] = " ".join(islice(cycle(problem["lecture"].split()), length))
    write_atomic(problems, file_text(content))


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _gib(*counts: int | None) -> str:
    """Return the first known number of bytes in GiB."""
    return next((f"{count / 2**30:.1f}" for count in counts if count is not None), "n/a")


def _run_row(step: str, record: Record) -> tuple[str, ...]:
    return (
        step,
        record.label,
        record.status,
        _number(record.times_s.train_step_median, 4),
        _number(record.times_s.train_step_p90, 4),
        _gib(record.peak_memory_bytes.cuda_allocated, record.peak_memory_bytes.rss),
        str(record.micro_batch),
        _number(record.loss.first if record.loss else None, 4),
        _number(record.loss.last if record.loss else None, 4),
    )


def _speed_rows(step: str, record: Record) -> Iterable[tuple[str, ...]]:
    if record.speed is None:
        return
    for phase, timing in record.speed.phases.items():
        ratios = (timing.ratio, timing.ratio_to_yardstick)
        yield (
            step,
            record.label,
            phase,
            f"{timing.median_s:.4f}",
            *("n/a" if ratio is None else f"{ratio.median:.3f} [{ratio.p10:.3f}, {ratio.p90:.3f}]" for ratio in ratios),
            _gib(timing.peak_memory_bytes),
            _number(timing.utilisation, 3),
        )


def _goals_of_run(outcomes: Sequence[Outcome]) -> list[str]:
    """Compare the captured steps of `run` with its eager ones and with the same steps in `speed`."""
    records = {(one.name, record.label): record for one in outcomes for record in one.records}
    found = []
    for (step, label), record in records.items():
        seconds = record.times_s.train_step_median
        if step != "run-captured" or not seconds:
            continue
        eager = records.get(("run-eager-4", label))
        if eager is not None and (slow := eager.times_s.train_step_median):
            found.append(f"{label}: a captured step of `run` is {slow / seconds:.2f} times as fast as 8 passes of 4.")
        same = records.get(("speed-whole-step", label))
        if same is not None and same.speed is not None and (timing := same.speed.phases.get("train")):
            ratio = seconds / timing.median_s
            text = f"{label}: a captured step of `run` takes {ratio:.3f} times as long as in `speed`"
            used = "" if timing.utilisation is None else f", which is a utilisation of {timing.utilisation / ratio:.1%}"
            found.append(f"{text}{used}.")
    return found


def _equal_losses(outcomes: Sequence[Outcome]) -> list[str]:
    """Say how far the losses of runs of one method lie apart that should differ in speed alone."""
    losses: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in (record for one in outcomes for record in one.records):
        if record.status == "completed" and record.loss and record.loss.first and record.loss.last:
            losses.setdefault((record.label, record.model), []).append((record.loss.first, record.loss.last))
    found = []
    for (label, _), pairs in losses.items():  # a quantised model is a model of its own
        apart = [max(abs(a / b - 1) for a, b in zip(one, two, strict=True)) for one, two in pairwise(pairs)]
        if apart:
            found.append(f"The losses of {label} differ by at most {max(apart):.2%} from one of its runs to the next.")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results and print the summary; return 1 if a step failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal with the tiny model")
    parser.add_argument("--budget", type=float, default=540, help="seconds for everything together")
    parser.add_argument("--data-root", type=Path, help="problems in ScienceQA's layout; by default the small world")
    parser.add_argument("--only", default="", help="names of steps, separated by commas; by default all")
    parser.add_argument("--list", action="store_true", help="print the steps and their commands, and measure nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as small_world:
        data = Path(options.data_root or small_world).resolve()  # the steps run in another folder
        steps = steps_for(options.device, data)
        wanted = set(filter(None, options.only.split(",")))
        if unknown := wanted - {step.name for step in steps}:
            parser.error(f"--only {','.join(sorted(unknown))}: the steps are {', '.join(step.name for step in steps)}")
        steps = [step for step in steps if not wanted or step.name in wanted]
        if options.list:
            for step in steps:
                print(f"{step.name} ({step.estimate_s:.0f} s): {step.missing or shlex.join(step.command)}")
            return 0
        if options.data_root is None:
            build_mini(data, sizes=SMALL_WORLD)
            lengthen(data / "problems.json")
        return measure(steps, options.budget)


def measure(steps: Sequence[Step], budget_s: float) -> int:
    """Run the steps, write what they measured after each one, and print the summary.

    Returns:
        1 if a step failed, 128 + its number if a signal stopped the steps, else 0.
    """
    out = Path(os.environ.get("OUT") or OUT)

    def summarise(outcomes: Sequence[Outcome]) -> None:
        write_atomic(out / SUMMARY, summary(outcomes))

    try:
        with stop_on_signals(once=True):  # `timeout` sends its signal twice
            outcomes = run_steps(steps, budget_s, out, lambda line: print(line, flush=True), summarise)
    except KeyboardInterrupt as stop:
        return exit_status(stop)
    print(f"\n{summary(outcomes)}\n{out / FILE} has all records.")
    return 1 if any(one.status == "failed" for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
