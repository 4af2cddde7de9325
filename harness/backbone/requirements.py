"""What a backbone needs before it can be loaded: weights and memory. One line says what is missing and what to do."""

import difflib
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch
from huggingface_hub import constants, try_to_load_from_cache

from harness.backbone.machine import dtype_name
from harness.config.presets import BackboneSpec
from harness.errors import UserError

GIB = 2**30
_ALTERNATIVES = "or run `--model tiny`, which comes with its weights, or measure cost with `--weights random`"


def hub_reachable(timeout_s: float = 3.0) -> bool:
    """Return whether the model hub accepts a connection.

    A download would retry for minutes, so this is tested once before anything is downloaded.

    Args:
        timeout_s: seconds to wait for the connection.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def require_weights(spec: BackboneSpec) -> None:
    """Check that the pretrained weights are available, without loading or downloading them.

    Raises:
        UserError: the preset has no pretrained weights, open_clip has no vision tower of that name, or the weights
            are not on this machine and cannot be downloaded.
    """
    if spec.llm is None or spec.clip is None:
        raise UserError(
            f"--model {spec.name}: has no pretrained weights, because it only measures cost; give --weights random"
        )
    check_clip_name(spec.clip)
    missing = missing_weights(spec)
    if missing and not hub_reachable():
        raise UserError(f"{'; '.join(missing)}; the model hub cannot be reached; {_ALTERNATIVES}")


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


def missing_llm(spec: BackboneSpec) -> str | None:
    """Return a message if the language model is neither a local folder nor in the hub's cache; None otherwise."""
    if spec.llm is None or Path(spec.llm).is_dir() or _cached(spec.llm, "config.json"):
        return None
    return f"the weights of {spec.llm} are not on this machine: give a folder with --llm PATH"


def missing_weights(spec: BackboneSpec) -> list[str]:
    """Return one line for each part of the backbone that is neither a local folder nor in the hub's cache."""
    missing = [line] if (line := missing_llm(spec)) else []
    if spec.clip is not None and not spec.clip.startswith("local-dir:") and not _clip_cached(spec.clip):
        missing.append(f"the weights of {spec.clip} are not on this machine: give --clip local-dir:FOLDER")
    return missing


def _cached(repo: str, file: str) -> bool:
    """Return whether a file of a hub repository is in the cache; False if `repo` is not a valid repository name."""
    try:
        return isinstance(try_to_load_from_cache(repo, file), str)
    except ValueError:
        return False


def _clip_cached(clip: str) -> bool:
    import open_clip

    name, _, tag = clip.partition(":")
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    repo = (config.get("hf_hub") or "").rstrip("/")
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return bool(repo) and any(_cached(repo, file) for file in files)


def free_memory(device: torch.device) -> int:
    """Return the free memory of `device` in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return psutil.virtual_memory().available


def require_free_memory(parameters: int, dtype: torch.dtype, device: torch.device, model: str) -> None:
    """Check that a model fits into the free memory of a device. The meta device needs none.

    Args:
        parameters: number of its parameters.
        dtype: their dtype.
        device: where they go.
        model: the option that names it, and its value.

    Raises:
        UserError: they do not fit.
    """
    if device.type == "meta":
        return
    needed, free = parameters * dtype.itemsize, free_memory(device)
    if needed > free:
        raise UserError(
            f"{model}: the weights need {needed / GIB:.1f} GiB in {dtype_name(dtype)}, but {device.type} "
            f"has {free / GIB:.1f} GiB free; give --dtype bfloat16, a larger --device, or a smaller --model"
        )
