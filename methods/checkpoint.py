"""Saving and loading a method's trained parameters: a safetensors file and a JSON file, named like those of `peft`.

`adapter_model.safetensors` holds exactly the parameters of `methods.parameters.adapter_parameters`.
`adapter_config.json` holds the method's name, its config, and what the caller adds. This module decides what the files
contain; the caller decides how they are written (atomically, for example) and passes a function that does it.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from methods.parameters import adapter_parameters

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
LARGEST_CONFIG = 2**23
"""No config of an adapter has more bytes."""
LARGEST_VALUE = 1e6
"""No trained parameter is larger: an optimiser step moves it by about the learning rate."""


class SavedAdapter(BaseModel):
    """The content of `adapter_config.json`.

    Attributes:
        method: the method's registered name.
        config: the fields of its config.
        extra: what the caller added, such as the identity of the backbone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: str
    config: dict[str, Any]
    extra: dict[str, Any]


def save_adapter(folder: Path, method: Any, extra: Mapping[str, Any], write: Callable[[Path, bytes], object]) -> None:
    """Save the parameters and the config of a method into a folder.

    The config is written last, so a folder with a config is complete.

    Args:
        folder: where the two files go; `write` creates it if needed.
        method: an `nn.Module` that satisfies `methods.base.Method`.
        extra: JSON values to store together with the config.
        write: writes bytes to a path.

    Raises:
        TypeError: `extra` holds a value that JSON cannot represent; nothing is written.
    """
    tensors = {name: p.detach().cpu().contiguous() for name, p in adapter_parameters(method).items()}
    saved = SavedAdapter(method=method.name, config=method.config.model_dump(mode="json"), extra=dict(extra))
    config = json.dumps(saved.model_dump(), indent=2) + "\n"
    write(Path(folder) / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    write(Path(folder) / CONFIG_FILE, config.encode())


def load_adapter(folder: Path) -> SavedAdapter:
    """Read which method was saved in a folder, and with which config.

    A method must be built with this config before `load_adapter_state` can load its parameters.

    Args:
        folder: a folder that `save_adapter` wrote.

    Returns:
        The content of its `adapter_config.json`.

    Raises:
        ValueError: the config file cannot be read or is not JSON.
        ValidationError: a field of the config file is missing, unknown or of the wrong type. The error names the field
            but not the file, so the caller must add the file's name.
    """
    path = Path(folder) / CONFIG_FILE
    _require_no_pipe(path)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise ValueError(f"larger than {LARGEST_CONFIG / 2**20:.0f} MiB")
        content = json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give a folder that holds a saved adapter"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); save the adapter again") from error
    return SavedAdapter.model_validate(content)


def load_adapter_state(folder: Path, method: Any) -> None:
    """Load saved parameters into a method. If anything does not fit, no parameter is changed.

    Args:
        folder: a folder that `save_adapter` wrote.
        method: the method, built with the saved config.

    Raises:
        ValueError: as in `check_adapter`; or a parameter has another dtype, or a value that is NaN, infinite or too
            large for a trained parameter.
        ValidationError: as in `load_adapter`.
    """
    check_adapter(folder, method)
    path = Path(folder) / WEIGHTS_FILE
    tensors = _read(path, load_file)
    own = adapter_parameters(method)
    for name, parameter in own.items():
        if tensors[name].dtype != parameter.dtype:
            raise ValueError(
                f"{path}: {name}: has dtype {tensors[name].dtype}, not {parameter.dtype}; save the adapter again"
            )
        largest = tensors[name].abs().max().item() if tensors[name].numel() else 0.0
        if not largest <= LARGEST_VALUE:  # not `largest > LARGEST_VALUE`: NaN is not larger than anything
            kind = "NaN" if math.isnan(largest) else f"{largest:.3g}, which no trained parameter reaches"
            raise ValueError(f"{path}: {name}: contains {kind}; train the adapter again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def check_adapter(folder: Path, method: Any) -> None:
    """Check that saved parameters suit a method, without reading them: only the header of their file is read.

    Args:
        folder: a folder that `save_adapter` wrote.
        method: the method, built with the saved config. On the meta device it takes no memory, whatever the config is.

    Raises:
        ValueError: the adapter is another method's; a file is missing or damaged; or a parameter is missing, unknown
            or of another shape.
        ValidationError: as in `load_adapter`.
    """
    saved = load_adapter(folder)
    if saved.method != method.name:
        raise ValueError(
            f"{Path(folder) / CONFIG_FILE}: method: is {saved.method!r}, not {method.name!r}; "
            f"give a folder that holds an adapter of {method.name!r}"
        )
    path = Path(folder) / WEIGHTS_FILE
    shapes = tensor_shapes(folder)
    own = adapter_parameters(method)
    for name in own.keys() - shapes.keys():
        raise ValueError(f"{path}: {name}: is missing; save the adapter again")
    for name in shapes.keys() - own.keys():
        raise ValueError(
            f"{path}: {name!r}: is not a parameter of {method.name!r} with this config; save the adapter again"
        )
    for name, parameter in own.items():
        if shapes[name] != tuple(parameter.shape):
            raise ValueError(
                f"{path}: {name}: has shape {shapes[name]}, but this config and backbone need "
                f"{tuple(parameter.shape)}; use the backbone that it was trained on"
            )


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each saved parameter. Only the header of their file is read.

    Args:
        folder: a folder that `save_adapter` wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _read(Path(folder) / WEIGHTS_FILE, _shapes)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a file."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # it is no dict


def _read(path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    _require_no_pipe(path)
    try:
        return read(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}); save the adapter again") from error


def _require_no_pipe(path: Path) -> None:
    """Refuse what would be waited for or read without end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: is a pipe or a device; give a folder that holds a saved adapter")


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinity, which are no JSON but which `json` would read."""
    raise ValueError(f"{name} is no JSON value")
