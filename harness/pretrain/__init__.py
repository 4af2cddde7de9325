"""How the tiny backbone is made: a tokenizer, a CLIP and a Llama learn the small world from nothing."""

import json
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from harness.errors import UserError
from harness.files import write_atomic

CLIP_STEPS = 1500
LLM_STEPS = 4500


def pretrain(
    out: Path, seed: int = 0, clip_steps: int = CLIP_STEPS, llm_steps: int = LLM_STEPS, threads: int | None = None
) -> dict[str, Any]:
    """Make the tiny backbone: write `llm/`, `clip/` and `training.json` into `out`.

    CLIP and the language model train at the same time, a process each. With one thread each (the default) the same
    seed gives the same weights on the same processor type and library versions, whatever the number of cores.

    Args:
        out: folder, made as needed; files in it are replaced.
        seed: of everything that is drawn.
        clip_steps: optimizer steps of CLIP (128 pairs each).
        llm_steps: optimizer steps of the language model (about 1,600 tokens each).
        threads: of each of the two trainings, 1 by default.

    Returns:
        What `training.json` holds: seed, steps, seconds, sizes, and the measured accuracies (`oracle` on the mini
        benchmark's test problems, over all and by kind; `text` and `none` likewise; `overlay_own` and `overlay_all`,
        see `harness.pretrain.overlay`; `retrieval_among_128`; `probe`, see `harness.pretrain.probe`).

    Raises:
        UserError: a step count below 1, or a folder that cannot be written.
    """
    if min(clip_steps, llm_steps, threads or 1) < 1:
        raise UserError("pretrain: give at least one step and one thread")
    try:
        (out / "llm").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot write ({error}); choose another folder") from error
    from harness.pretrain.tokenizer import save_tokenizer

    save_tokenizer(out / "llm")
    started = time.monotonic()
    clip, llm = _train_both(out, seed, {"clip": clip_steps, "llm": llm_steps}, threads or 1)
    figures = {"seed": seed, "threads": threads or 1, "clip": clip, "llm": llm, **measure(out)}
    figures["seconds"] = round(time.monotonic() - started, 1)
    write_atomic(out / "training.json", json.dumps(figures, indent=2) + "\n")
    return figures


def measure(folder: Path) -> dict[str, Any]:
    """Accuracies and sizes of the tiny backbone in `folder`."""
    from harness.pretrain import check
    from harness.pretrain.probe import probe_accuracy

    model, tokenizer = check.load_llm(folder / "llm")
    accuracies: dict[str, Any] = {
        name: check.oracle_accuracy(model, tokenizer, check.test_items(mode))
        for name, mode in (("oracle", "image"), ("text", "text"), ("none", "none"))
    }
    for name, own in (("overlay_own", True), ("overlay_all", False)):
        accuracies[name] = check.overlay_accuracy(model, tokenizer, check.test_items("image"), own)
    clip = check.load_clip(folder / "clip")
    accuracies["retrieval_among_128"] = check.retrieval_accuracy(clip, tokenizer)
    accuracies["probe"] = probe_accuracy(clip)
    files = sorted(path for part in ("llm", "clip") for path in (folder / part).iterdir())
    return {
        **accuracies,
        "parameters": {
            "llm": sum(p.numel() for p in model.parameters()),
            "clip": sum(p.numel() for p in clip.parameters()),
            "clip_vision": sum(p.numel() for p in clip.visual.parameters()),
        },
        "bytes": {f"{path.parent.name}/{path.name}": path.stat().st_size for path in files},
    }


def _train_both(out: Path, seed: int, steps: dict[str, int], threads: int) -> tuple[dict[str, float], ...]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    context = get_context("spawn")
    columns = (TextColumn("{task.fields[name]:4} {task.fields[line]}"), BarColumn(), "{task.completed}/{task.total}")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(2, mp_context=context) as pool,
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
    ):
        lines = manager.Queue()
        tasks = {name: progress.add_task("", total=n, name=name, line="") for name, n in steps.items()}
        jobs = [pool.submit(_train, name, out, seed, n, threads, lines) for name, n in steps.items()]
        _follow(jobs, lines, lambda name, step, line: progress.update(tasks[name], completed=step, line=line))
        return tuple(job.result() for job in jobs)


def _follow(
    jobs: list[Future[dict[str, float]]], lines: "Queue[tuple[str, int, str]]", show: Callable[[str, int, str], None]
) -> None:
    """Show what the trainings report until both are done or one has failed."""
    while True:
        try:
            show(*lines.get(timeout=1))
        except Empty:
            done = wait(jobs, timeout=0, return_when=FIRST_EXCEPTION)
            if not done.not_done or any(job.exception() for job in done.done):
                return


def _train(
    name: str, out: Path, seed: int, steps: int, threads: int, lines: "Queue[tuple[str, int, str]]"
) -> dict[str, float]:
    """One training, in a process of its own."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from harness.pretrain.clip import train_clip
    from harness.pretrain.llm import train_llm

    torch.set_num_threads(threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "llm", local_files_only=True)
    train = train_clip if name == "clip" else train_llm
    return train(out / name, tokenizer, seed, steps, lambda step, line: lines.put((name, step, line)))
