"""The device of a run, the dtype of the frozen weights, and whether these are pretrained or random."""

import os
from dataclasses import dataclass

import torch

from harness.config.presets import WEIGHTS
from harness.errors import UserError
from harness.processes import local_processes, local_rank

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Name -> dtype of frozen weights. `dtype_name` is the inverse."""


@dataclass(frozen=True)
class Machine:
    """The device of a run, and the kind of frozen weights on it.

    Attributes:
        device: the device of the weights and of all computation.
        dtype: dtype of the frozen weights.
        weights: `pretrained` or `random`.
    """

    device: torch.device
    dtype: torch.dtype
    weights: str = "pretrained"


def use_deterministic_algorithms() -> None:
    """Let torch compute with deterministic algorithms only; an operation that has none is then an error.

    Call it before anything is computed on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Otherwise what is compiled may depend on times that the compiler measures.
    from torch._inductor import config

    config.deterministic = True


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without its package, such as `float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def gpu_name(device: torch.device) -> str | None:
    """Return the model of the GPU that a device is; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def resolve_machine(name: str, dtype: str, weights: str, is_here: bool = True) -> Machine:
    """Return the machine that the options name.

    Args:
        name: value of `--device`.
        dtype: value of `--dtype`; `auto` is bfloat16 on a GPU and float32 elsewhere.
        weights: value of `--weights`.
        is_here: whether it is this machine. Of another one nothing is known, so its device must be cpu or cuda.

    Raises:
        UserError: there is no such device, dtype or kind of weights.
    """
    if weights not in WEIGHTS:
        raise UserError(f"--weights {weights}: no such kind of weights; give {' or '.join(WEIGHTS)}")
    if not is_here and name not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: other machines make the runs and may differ; give cpu or cuda")
    device = torch_device(name) if is_here else torch.device(name)
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: not supported; give {', '.join(DTYPES)} or auto")
    return Machine(device, DTYPES[dtype], weights)


def torch_device(name: str) -> torch.device:
    """Return the device that `--device` names. A GPU becomes torch's current device.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU where there is one. Of several processes that a launcher
            started on this machine, each takes the GPU with its own number.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (rank := local_rank()) is not None:
        name = f"cuda:{rank}"
        # All processes find this, so the first one, which alone prints, says it.
        if (there := local_processes()) > (count := torch.cuda.device_count()):
            raise UserError(
                f"--device cuda: {there} processes on this machine, but {count} GPUs; start one for each GPU"
            )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: no such device; give cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: not supported; give cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: torch can use {count} GPUs here; give --device cpu or one of them")
        # Accelerate puts everything on the current device, and torch makes a device current by its index only.
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device
