"""Make the tiny backbone: train a tokenizer, a CLIP and a Llama on the small world, from random weights."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from harness.errors import UserError
from harness.files import write_atomic
from harness.stopping import end_with_parent

CLIP_STEPS = 2000
LLM_STEPS = 5500


def pretrain(
    out: Path, seed: int = 0, clip_steps: int = CLIP_STEPS, llm_steps: int = LLM_STEPS, threads: int | None = None
) -> dict[str, Any]:
    """Train the tiny backbone and write `llm/`, `clip/` and `training.json` to `out`.

    CLIP and the language model are trained at the same time, each in its own process. With one thread per training the
    same seed gives the same weights on the same processor type and library versions, whatever the number of cores.

    Args:
        out: folder to write to, created if necessary; files in it are replaced.
        seed: seed of everything that is drawn.
        clip_steps: optimiser steps of CLIP, 64 pairs each.
        llm_steps: optimiser steps of the language model, about 1,600 tokens each.
        threads: threads of each of the two trainings; None is 1.

    Returns:
        the content of `training.json`: seed, threads, what `train_clip` and `train_llm` return, what `measure` returns,
        and the seconds of the whole.

    Raises:
        UserError: a number of steps or threads is below 1, or the folder cannot be written. If one training fails, the
            other is ended.
    """
    threads = 1 if threads is None else threads
    if min(clip_steps, llm_steps, threads) < 1:
        raise UserError("pretrain: a number of steps or threads is below 1; give at least one step and one thread")
    try:
        (out / "llm").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); choose another folder") from error
    from harness.pretrain.tokenizer import save_tokenizer

    save_tokenizer(out / "llm")
    started = time.monotonic()
    clip, llm = _train_both(out, seed, {"clip": clip_steps, "llm": llm_steps}, threads)
    results = {"seed": seed, "threads": threads, "clip": clip, "llm": llm, **measure(out)}
    results["seconds"] = round(time.monotonic() - started, 1)
    write_atomic(out / "training.json", json.dumps(results, indent=2) + "\n")
    return results


def measure(folder: Path) -> dict[str, Any]:
    """Measure a tiny backbone.

    Args:
        folder: folder with `llm/` and `clip/`.

    Returns:
        accuracies: `oracle`, `text` and `none`, over all test problems of that mode and by kind of question;
        `overlay_own` and `overlay_all` (see `harness.pretrain.overlay`); `retrieval_among_128`; `probe` (see
        `harness.pretrain.probe`). Sizes: `parameters` of each part, and `bytes` of each file.
    """
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
    """Run the trainings named in `steps`, each in its own process, and return their results in that order.

    If one fails, the others are ended, and its error is raised.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    context = get_context("spawn")
    columns = (TextColumn("{task.fields[name]:4} {task.fields[line]}"), BarColumn(), "{task.completed}/{task.total}")
    failed = context.Event()
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent)
    with (
        manager,
        ProcessPoolExecutor(2, mp_context=context, initializer=_end_with_others, initargs=(failed,)) as pool,
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
    ):
        reports = manager.Queue()
        tasks = {name: progress.add_task("", total=n, name=name, line="") for name, n in steps.items()}
        jobs = [pool.submit(_train, name, out, seed, n, threads, reports) for name, n in steps.items()]
        try:
            _show_progress(
                jobs, reports, lambda name, step, line: progress.update(tasks[name], completed=step, line=line)
            )
        except BaseException:
            failed.set()  # the pool would wait for the other training
            raise
        return tuple(job.result() for job in jobs)


def _end_with_others(failed: Event) -> None:
    """End this process when its parent has ended, or when another training has failed."""

    def follow() -> None:
        failed.wait()
        os._exit(1)

    end_with_parent()
    Thread(target=follow, daemon=True).start()


def _show_progress(
    jobs: list[Future[dict[str, float]]], reports: "Queue[tuple[str, int, str]]", show: Callable[[str, int, str], None]
) -> None:
    """Show what the trainings report until all are done; raise the error of one that fails."""
    while not all(job.done() for job in jobs) or not reports.empty():
        with suppress(Empty):
            show(*reports.get(timeout=1))
        for job in jobs:
            if job.done():
                job.result()


def _train(
    name: str, out: Path, seed: int, steps: int, threads: int, reports: "Queue[tuple[str, int, str]]"
) -> dict[str, float]:
    """Run one training, `clip` or `llm`; it is started in its own process."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from harness.pretrain.clip import train_clip
    from harness.pretrain.llm import train_llm

    torch.set_num_threads(threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "llm", local_files_only=True, trust_remote_code=False)
    train = train_clip if name == "clip" else train_llm
    return train(out / name, tokenizer, seed, steps, lambda step, line: reports.put((name, step, line)))
