"""What a run needs that may not be there: weights and memory. Each lack is one line that names the way out."""

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


def require_weights(spec: BackboneSpec) -> None:
    """Check that the pretrained weights can be had, without loading or fetching any.

    Raises:
        UserError: there are none, no vision tower of that name, or they are neither here nor can be fetched.
    """
    if spec.llm is None or spec.clip is None:
        raise UserError(
            f"--model {spec.name}: is a size to measure cost with, it has no pretrained weights; give --weights random"
        )
    check_clip_name(spec.clip)
    lacks = missing_weights(spec)
    if lacks and not hub_reachable():
        raise UserError(f"{'; '.join(lacks)}; the model hub cannot be reached; {_INSTEAD}")


def check_clip_name(clip: str, *, weights: bool = True) -> None:
    """Raise UserError where open_clip knows no such `NAME[:WEIGHTS]`, or `local-dir:FOLDER` is no model's folder.

    Args:
        clip: the name.
        weights: whether weights must be named too.
    """
    import open_clip

    name, _, tag = clip.partition(":")
    if name == "local-dir":
        if not Path(tag, "open_clip_config.json").is_file():
            raise UserError(f"--clip {clip}: no open_clip_config.json there; give the folder of an open_clip model")
        return
    if open_clip.get_model_config(name) is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see open_clip.list_models()"
        raise UserError(f"--clip {clip}: open_clip knows no model {name}; {hint}")
    if not weights:
        return
    if tag == "openai" and "quickgelu" not in name:
        raise UserError(f"--clip {clip}: OpenAI weights need QuickGELU; give {name}-quickgelu:openai")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise UserError(f"--clip {clip}: open_clip has these weights for {name}: {', '.join(tags) or 'none'}; give one")


def missing_llm(spec: BackboneSpec) -> str | None:
    """One line where the language model is neither a local folder nor in the hub's cache."""
    if spec.llm is None or Path(spec.llm).is_dir() or _cached(spec.llm, "config.json"):
        return None
    return f"the weights of {spec.llm} are not on this machine: give a folder by --llm PATH"


def missing_weights(spec: BackboneSpec) -> list[str]:
    """What of the backbone's weights is neither a local folder nor in the hub's cache, one line each."""
    lacks = [lack] if (lack := missing_llm(spec)) else []
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
