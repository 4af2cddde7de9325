"""What a run needs that may not be there: weights and memory. Each lack is one line that names the way out."""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from huggingface_hub import constants, try_to_load_from_cache

from harness.errors import UserError
from harness.presets import BackboneSpec

GIB = 2**30
_INSTEAD = "or run `--model tiny`, which ships with its weights, or measure cost with `--weights random`"


def hub_reachable(timeout_s: float = 3.0) -> bool:
    """Whether the model hub answers; asked once, because a download would retry for minutes."""
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def require_hub_files(spec: BackboneSpec) -> None:
    """Raise UserError where the weights are neither local nor cached and the hub cannot be reached."""
    lacks = missing_weights(spec)
    if lacks and not hub_reachable():
        raise UserError(f"{'; '.join(lacks)}; the model hub cannot be reached; {_INSTEAD}")


def missing_weights(spec: BackboneSpec) -> list[str]:
    """What of the backbone's weights is neither a local folder nor in the hub's cache, one line each."""
    lacks = []
    if spec.llm is not None and not Path(spec.llm).is_dir() and not _cached(spec.llm, "config.json"):
        lacks.append(f"the weights of {spec.llm} are not on this machine: give a folder by --llm PATH")
    if spec.clip is not None and not spec.clip.startswith("local-dir:") and not _clip_cached(spec.clip):
        lacks.append(f"the weights of {spec.clip} are not on this machine: give --clip local-dir:FOLDER")
    return lacks


def _cached(repo: str, file: str) -> bool:
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
    """Bytes free on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_free_memory(parameters: int, dtype: torch.dtype, device: torch.device, spec: BackboneSpec) -> None:
    """Raise UserError where `parameters` of `dtype` do not fit into the free memory of `device`."""
    if device.type == "meta":
        return
    needed, free = parameters * dtype.itemsize, free_memory(device)
    if needed > free:
        raise UserError(
            f"--model {spec.name}: the weights need {needed / GIB:.1f} GiB as {dtype_name(dtype)} and {device.type} "
            f"has {free / GIB:.1f} GiB free; give --dtype bfloat16, a larger --device, or a smaller --model"
        )


def dtype_name(dtype: Any) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
