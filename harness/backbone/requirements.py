"""What a backbone needs before it can be loaded: names that exist, regular files, and memory.

One line says what is wrong and what to do. Whether the weights are there is in `weights`.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

from harness.backbone.machine import dtype_name
from harness.errors import UserError
from harness.numbers import readable_memory

GIB = 2**30
TEMPLATES = "additional_chat_templates"
"""Folder inside a model's folder whose files are read as well."""
LARGEST_TEXT = 128 * 2**20
"""No tokenizer or config has more bytes."""
_TEXTS = (".json", ".jinja", ".model", ".txt")


def check_clip_name(clip: str, *, weights: bool = True) -> None:
    """Check that open_clip knows a model.

    Args:
        clip: `NAME[:WEIGHTS]`, or `local-dir:FOLDER`.
        weights: whether the name must include weights that open_clip has.

    Raises:
        UserError: open_clip has no such model or weights, or the folder contains no model.
    """
    import open_clip

    name, _, tag = clip.partition(":")
    if name == "local-dir":
        require_regular_files(f"--clip {clip}", Path(tag))
        if not Path(tag, "open_clip_config.json").is_file():
            raise UserError(f"--clip {clip}: has no open_clip_config.json; give the folder of an open_clip model")
        return
    if open_clip.get_model_config(name) is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see open_clip.list_models()"
        raise UserError(f"--clip {clip}: open_clip has no model {name}; {hint}")
    if not weights:
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    # The activation has no parameters, so such weights load into the other model without an error.
    weights_config = open_clip.get_pretrained_cfg(name, tag) or {}
    if weights_config.get("quick_gelu") and not open_clip.get_model_config(name).get("quick_gelu"):
        quick = f"{name}-quickgelu"
        remedy = f"give {quick}:{tag}" if quick in open_clip.list_models() else "open_clip has no model for them"
        raise UserError(f"--clip {clip}: these weights need QuickGELU, which {name} does not have; {remedy}")
    if tag not in tags:
        raise UserError(
            f"--clip {clip}: open_clip has these weights for {name}: {', '.join(tags) or 'none'}; give one of them"
        )


def require_regular_files(option: str, folder: Path) -> None:
    """Check that a model's folder has nothing that a library would wait for or read without end.

    Pipes and devices are refused, and files of text and settings that are larger than any real one.

    Args:
        option: the option that names the folder, and its value.
        folder: the folder; nothing is checked if there is none.

    Raises:
        UserError: something in it is neither a file nor a folder, or is too large.
    """
    places = (folder, folder / TEMPLATES)
    for path in (path for place in places if place.is_dir() for path in sorted(place.iterdir())):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{option}: {path.name} is a pipe or a device; replace it by a file")
        if path.suffix in _TEXTS and path.is_file() and path.stat().st_size > LARGEST_TEXT:
            size = readable_memory(LARGEST_TEXT)
            raise UserError(f"{option}: {path.name} is larger than {size}; give the folder of a real model")


def require_stored(option: str, parameters: int, files: Iterable[Path]) -> None:
    """Check that files can contain the weights of a model, before any are allocated for a config that says more.

    Args:
        option: the option that names the model, and its value.
        parameters: number of parameters that its config describes.
        files: its weights.

    Raises:
        UserError: the files have less than a bit for each parameter.
    """
    stored = sum(path.stat().st_size for path in files if path.is_file())
    if parameters > 8 * stored:
        raise UserError(
            f"{option}: its config describes {parameters:,} parameters, but its weights have {stored:,} bytes; give a "
            "complete model"
        )


def free_memory(device: torch.device) -> int:
    """Return the free memory of `device` in bytes."""
    if device.type == "cuda":
        # Otherwise what torch keeps of tensors that are gone, such as those of an earlier model, counts as taken.
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return psutil.virtual_memory().available


def require_free_memory(needed: int, dtype: torch.dtype, device: torch.device, model: str) -> None:
    """Check that a model fits into the free memory of a device. The meta device needs none.

    Args:
        needed: bytes of its weights.
        dtype: their dtype, before they are quantised.
        device: where they go.
        model: the option that names it, and its value.

    Raises:
        UserError: they do not fit.
    """
    if device.type == "meta":
        return
    free = free_memory(device)
    if needed > free:
        raise UserError(
            f"{model}: the weights need {readable_memory(needed)} in {dtype_name(dtype)}, but {device.type} "
            f"has {readable_memory(free)} free; give --dtype bfloat16, a larger --device, or a smaller --model"
        )
