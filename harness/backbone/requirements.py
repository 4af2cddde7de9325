"""What a backbone needs before it can be loaded: names that exist, regular files, and memory.

One line says what is wrong and what to do. Whether the weights are there is in `weights`.
"""

import difflib
from pathlib import Path

import psutil
import torch

from harness.backbone.machine import dtype_name
from harness.errors import UserError
from harness.numbers import readable_memory

GIB = 2**30


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
        if not Path(tag, "open_clip_config.json").is_file():
            raise UserError(f"--clip {clip}: has no open_clip_config.json; give the folder of an open_clip model")
        require_regular_files(f"--clip {clip}", Path(tag))
        return
    if open_clip.get_model_config(name) is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see open_clip.list_models()"
        raise UserError(f"--clip {clip}: open_clip has no model {name}; {hint}")
    if not weights:
        return
    if tag == "openai" and "quickgelu" not in name:
        raise UserError(f"--clip {clip}: OpenAI weights need QuickGELU; give {name}-quickgelu:openai")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise UserError(
            f"--clip {clip}: open_clip has these weights for {name}: {', '.join(tags) or 'none'}; give one of them"
        )


def require_regular_files(option: str, folder: Path) -> None:
    """Check that a model's folder has nothing that a library would wait for or read without end: pipes and devices.

    Args:
        option: the option that names the folder, and its value.
        folder: the folder; nothing is checked if there is none.

    Raises:
        UserError: something in it is neither a file nor a folder.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{option}: {path.name} is a pipe or a device; replace it by a file")


def free_memory(device: torch.device) -> int:
    """Return the free memory of `device` in bytes."""
    if device.type == "cuda":
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
