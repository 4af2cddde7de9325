"""The subcommand `doctor`: what a run needs, what of it is here, and the command that mends the rest."""

import json
import platform
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
import torch
from huggingface_hub import constants
from rich.console import Console

from harness.backbone.language_model import llm_size
from harness.backbone.machine import DTYPES, dtype_name, resolve_machine
from harness.backbone.requirements import free_memory
from harness.backbone.weights import missing_weights
from harness.config.presets import BackboneSpec, resolve_spec
from harness.data.dataset import require_folder
from harness.data.places import ENVIRONMENT, PLACES, find_data, kept_folder, place_of, unheeded
from harness.disk import free_space
from harness.errors import UserError, first_line
from harness.evaluation.caption_metrics import check_tokenizer
from harness.files import cache_folder, require_place
from harness.hub import hub_reachable
from harness.numbers import readable_memory, readable_size
from harness.run.compiled import require_compiler
from harness.run.downloads import REMEDY, Download, download_of_data, downloads_of_weights, rooms_for
from harness.run.progress import print_line
from harness.streams import print_result
from harness.tasks.facts import task_facts
from harness.terminal import UNLIMITED, entry, terminal_width

Status = Literal["ok", "warning", "missing"]
PACKAGES = ("torch", "transformers", "open_clip_torch", "peft", "accelerate", "huggingface_hub", "datasets")
JAVA_TASK = "coco"
"""The task whose scores need Java."""
REPORT = "see what the message says; if it does not help, report it with the whole output"
RECORDS_BYTES = 10**9
"""Space for records, adapters and checkpoints below which a sweep may fail."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what it is.
        status: `missing` stops the run, `warning` does not.
        found: what was found.
        remedy: what mends it; empty where nothing is wrong.
    """

    what: str
    status: Status
    found: str
    remedy: str = ""


def doctor_command(
    model: str, llm: str | None, clip: str | None, task: str, data_root: Path | None, format: str, console: Console
) -> int:
    """Look at everything that a run needs, print it, and return the exit status: 2 where the run cannot be made.

    Args:
        model, llm, clip: the backbone, as in `run`.
        task: the task.
        data_root: the data folder; None looks where `run` looks.
        format: `json`, or `markdown` for people.
        console: where lines go.

    Raises:
        UserError: there is no such model or task.
    """
    spec = resolve_spec(model, llm, clip)
    task_facts(task)
    findings = list(examine(spec, task, data_root))
    if format == "json":
        print_result(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = terminal_width() or UNLIMITED
        for finding in findings:
            shown = entry(f"{finding.status:8} {finding.what:9} ", finding.found, width)
            if finding.remedy:
                shown += entry(" " * 19, f"to mend it: {finding.remedy}", width)
            for line in shown.splitlines():
                print_line(console, line)
    return 2 if any(finding.status == "missing" for finding in findings) else 0


def examine(spec: BackboneSpec, task: str, data_root: Path | None) -> Iterator[Finding]:
    """Yield a finding on each thing that a run needs.

    Args:
        spec: the backbone.
        task: the task.
        data_root: the data folder; None looks where `run` looks.
    """
    reachable = hub_reachable()
    probes: dict[str, Callable[[], Iterable[Finding]]] = {
        "Python": lambda: [Finding("Python", "ok", f"{platform.python_version()} on {platform.platform()}")],
        "packages": _packages,
        "devices": _devices,
        "compiler": _compiler,
        "memory": lambda: [_memory(spec)],
        "Java": lambda: [_java(task)],
        "hub": lambda: [_hub(reachable)],
        "disk": lambda: _disk(spec, task, data_root),
        "data": lambda: _data(spec, task, data_root),
        "weights": lambda: _weights(spec, reachable),
        "downloads": lambda: _room(spec, task, data_root) if reachable else (),
    }
    for what, probe in probes.items():
        try:
            yield from probe()
        except UserError as error:
            yield Finding(what, "missing", *_divided(str(error)))
        except Exception as error:  # what one probe meets must not hide what the others find
            yield Finding(what, "missing", f"cannot be examined ({type(error).__name__}: {first_line(error)})", REPORT)


def _packages() -> Iterator[Finding]:
    absent = [name for name in PACKAGES if not list(metadata.distributions(name=name))]
    if absent:
        yield Finding("packages", "missing", f"not installed: {', '.join(absent)}", "pip install -e .")
    present = [f"{name} {metadata.version(name)}" for name in PACKAGES if name not in absent]
    yield Finding("packages", "ok", ", ".join(present))


def _devices() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}: {readable_memory(free)} of {readable_memory(total)} free"
        yield Finding(f"GPU {index}", "ok", found)
    if not torch.cuda.device_count():
        built = "torch is built without CUDA" if torch.version.cuda is None else "torch finds none"
        yield Finding("GPU", "warning", f"none ({built})", "use a machine with a GPU and a torch that supports it")
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count() or 1
    left = f"{readable_memory(memory.available)} of {readable_memory(memory.total)} free"
    yield Finding("CPU", "ok", f"{cores} cores, {left}")


def _compiler() -> Iterator[Finding]:
    """Compile code for the GPU that `run` takes, where there is one.

    Raises:
        UserError: code cannot be compiled.
    """
    if torch.cuda.device_count():
        require_compiler(resolve_machine("auto", "auto", "pretrained").device, "give `run` --set captured=false")
        yield Finding("compiler", "ok", "torch compiles code for the GPU")


def _memory(spec: BackboneSpec) -> Finding:
    """Compare the weights of the language model with the free memory of the device that `run` takes."""
    machine = resolve_machine("auto", "auto", "pretrained")
    where = machine.device.type
    try:
        needed = llm_size(spec, machine.dtype).bytes
    except UserError as error:
        return Finding("memory", "warning", f"not known ({error})", "give a model whose config.json can be read")
    free = free_memory(machine.device)
    found = (
        f"{spec.display} needs {readable_memory(needed)} in {dtype_name(machine.dtype)}, "
        f"{where} has {readable_memory(free)} free"
    )
    if needed <= free:
        return Finding("memory", "ok", found)
    half = "" if machine.dtype == DTYPES["bfloat16"] else "add --dtype bfloat16, or "
    return Finding("memory", "missing", found, f"{half}take a device with more memory, or run `--model tiny`")


def _java(task: str) -> Finding:
    """Start Java on one caption: a Java that is installed may still not run."""
    try:
        check_tokenizer()
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")  # what Java says may hold semicolons, too
        return Finding("Java", "missing" if task == JAVA_TASK else "warning", found, remedy)
    return Finding("Java", "ok", "starts")


def _hub(reachable: bool) -> Finding:
    if reachable:
        return Finding("hub", "ok", f"{constants.ENDPOINT} answers")
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "warning", "HF_HUB_OFFLINE is set: nothing can be downloaded", "unset HF_HUB_OFFLINE")
    remedy = "set HTTPS_PROXY to your proxy, or HF_ENDPOINT to a mirror"
    return Finding("hub", "warning", f"{constants.ENDPOINT} does not answer: nothing can be downloaded", remedy)


def _disk(spec: BackboneSpec, task: str, data_root: Path | None) -> Iterator[Finding]:
    """Look at the places where a run writes. It always writes results; the others only if something is downloaded."""
    places = {"results": Path("results").absolute(), "cache": cache_folder(), "weights": Path(constants.HF_HUB_CACHE)}
    written = [folder for download in _downloads(spec, task, data_root) for _, folder in download.writes]
    for what, folder in places.items():
        try:
            require_place(folder)
        except UserError as error:
            needed = what == "results" or any(other.is_relative_to(folder) for other in written)
            found, remedy = _divided(str(error))
            remedies = {"results": "give `run` another --results", "cache": "set XDG_CACHE_HOME to another folder"}
            yield Finding("disk", "missing" if needed else "warning", f"{what}: {found}", remedies.get(what, remedy))
            continue
        free = free_space(folder)
        found = f"{readable_size(free)} free for {what} in {folder}"
        if free >= RECORDS_BYTES:
            yield Finding("disk", "ok", found)
        else:
            yield Finding("disk", "warning", found, "free some space, or use a folder on another disk")


def _room(spec: BackboneSpec, task: str, data_root: Path | None) -> Iterator[Finding]:
    """Compare what `run` would download with the free space, disk by disk."""
    for room in rooms_for(_downloads(spec, task, data_root)):
        if room.is_enough:
            yield Finding("downloads", "ok", str(room))
        else:
            yield Finding("downloads", "missing", str(room), REMEDY)


def _downloads(spec: BackboneSpec, task: str, data_root: Path | None) -> list[Download]:
    """Return what `run` would download."""
    downloads = downloads_of_weights(missing_weights(spec))
    if data_root is None and not spec.packaged and task in PLACES and find_data(task) is None:
        downloads.append(download_of_data(task))
    return downloads


def _data(spec: BackboneSpec, task: str, data_root: Path | None) -> Iterator[Finding]:
    if data_root is None and not spec.packaged and (line := unheeded(task)):
        yield Finding("data", "warning", line, f"set {ENVIRONMENT} to a folder with {task}/, or unset it")
    yield _found_data(spec, task, data_root)


def _found_data(spec: BackboneSpec, task: str, data_root: Path | None) -> Finding:
    """Look for the data, and read it: a folder may have only a part of it.

    Raises:
        UserError: something is missing from the folder, or wrong.
    """
    if data_root is None and spec.packaged:
        return Finding("data", "ok", "the small world, which is made on first use")
    if data_root is not None and task not in PLACES:
        require_folder(data_root, f"the data of --task {task}")
        return Finding("data", "ok", f"{data_root}, which `run` reads")
    place = place_of(task)
    if data_root is not None:
        if (data_root / place.annotations).is_file():
            return _readable(task, data_root)
        remedy = f"python -m harness data fetch {task} --data-root {shlex.quote(str(data_root))}"
        if data_root.exists() and (not data_root.is_dir() or any(data_root.iterdir())):
            remedy = f"give the folder that has {place.annotations}, or a new folder to `data fetch {task}`"
        return Finding("data", "missing", f"{data_root} has no {place.annotations}", remedy)
    if folder := find_data(task):
        return _readable(task, folder)
    if place.reachable():
        found = f"{place.offer()}: `run` downloads it"
        return Finding("data", "ok", found, f"python -m harness data fetch {task}   (now, into {kept_folder(task)})")
    return Finding("data", "missing", place.absent(), place.remedy)


def _readable(task: str, folder: Path) -> Finding:
    place_of(task).load(folder)
    return Finding("data", "ok", f"{task} in {folder}")


def _weights(spec: BackboneSpec, reachable: bool) -> Iterator[Finding]:
    missing = missing_weights(spec)
    for fault in missing.faults:
        yield Finding("weights", "missing", *_divided(fault))
    for source in missing.sources:
        if reachable:
            yield Finding("weights", "ok", f"{source.offer()}: `run` downloads them")
        else:
            yield Finding("weights", "missing", source.absent(), source.remedy)
    if not missing.lines:
        yield Finding("weights", "ok", f"{spec.llm} and {spec.clip}")


def _divided(fault: str) -> Sequence[str]:
    """Return what is wrong and what to do, which a message has in one line."""
    what, _, remedy = fault.partition("; ")
    return what, remedy
