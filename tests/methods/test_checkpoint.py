"""Saved adapters: what the two files contain, how they are written, and what loading rejects."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from harness.files import write_atomic
from methods.checkpoint import CONFIG_FILE, WEIGHTS_FILE, check_adapter, load_adapter, load_adapter_state, save_adapter
from methods.parameters import adapter_parameters
from tests.backbones import tuned_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "a" / "b", tuned_model("memvp").method, {"backbone": {"llm": "tiny"}}, write_atomic)
    return tmp_path / "a" / "b"


@contextmanager
def unchanged(method: Any) -> Iterator[Any]:
    """Check that a method's parameters are the same afterwards."""
    before = {name: parameter.clone() for name, parameter in method.named_parameters()}
    yield method
    assert all(torch.equal(parameter, before[name]) for name, parameter in method.named_parameters())


def refused(folder: Path, method: Any = None) -> str:
    """Return the message with which loading fails; the method must be as it was before."""
    method = tuned_model("memvp", seed=2).method if method is None else method
    with unchanged(method), pytest.raises(ValueError) as error:
        load_adapter_state(folder, method)
    message = str(error.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_an_adapter_is_two_files_named_like_those_of_peft(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_weights_file_holds_exactly_the_parameters(folder: Path) -> None:
    method = tuned_model("memvp").method
    tensors = load_file(folder / WEIGHTS_FILE)
    assert tensors.keys() == adapter_parameters(method).keys()
    assert all(torch.equal(tensors[name], p) for name, p in method.named_parameters())


def test_the_config_file_holds_the_method_its_config_and_the_extra(folder: Path) -> None:
    method, saved = tuned_model("memvp").method, load_adapter(folder)
    assert (saved.method, saved.extra) == ("memvp", {"backbone": {"llm": "tiny"}})
    assert type(method).Config(**saved.config) == method.config


def test_loading_restores_every_parameter(folder: Path) -> None:
    method, other = tuned_model("memvp").method, tuned_model("memvp", seed=2).method
    load_adapter_state(folder, other)
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_the_config_is_written_last() -> None:
    written: list[str] = []
    save_adapter(Path("x"), tuned_model("memvp").method, {}, lambda path, data: written.append(path.name))
    assert written == [WEIGHTS_FILE, CONFIG_FILE]


def test_another_methods_adapter_is_refused(folder: Path) -> None:
    assert "method: is 'memvp', not 'dehvf'" in refused(folder, tuned_model("dehvf").method)


def _without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["memory.prompts.keys"]


def _with_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["memory.gate"] = torch.zeros(1)


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["memory.prompts.keys"] = tensors["memory.prompts.keys"][:-1].clone()


def _with(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["memory.prompts.keys"][3, 5] = value

    return change


def _half(tensors: dict[str, torch.Tensor]) -> None:
    tensors["memory.prompts.keys"] = tensors["memory.prompts.keys"].half()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, "memory.prompts.keys: is missing"),
        (_with_more, "'memory.gate': is not a parameter of 'memvp'"),
        (_reshaped, "memory.prompts.keys: has shape (19, 64), but this config and backbone need (20, 64)"),
        (_half, "memory.prompts.keys: has dtype torch.float16, not torch.float32"),
        (_with(float("nan")), "memory.prompts.keys: contains NaN"),
        (_with(float("-inf")), "memory.prompts.keys: contains inf, which no trained parameter reaches"),
        (_with(-1e30), "memory.prompts.keys: contains 1e+30, which no trained parameter reaches"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)
    assert f"{WEIGHTS_FILE}: {message}" in refused(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100])
    assert f"{WEIGHTS_FILE}: cannot be read as safetensors" in refused(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    assert f"{WEIGHTS_FILE}: cannot be read as safetensors" in refused(folder)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"method": NaN}', '{"method": -Infinity}', "9" * 5000])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: str) -> None:
    (folder / CONFIG_FILE).write_text(content)
    assert f"{CONFIG_FILE}: is not valid JSON" in refused(folder)


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ("[]", (), "Input should be"),
        ('{"method": "memvp", "config": {}}', ("extra",), "Field required"),
        ('{"method": "memvp", "config": {}, "extra": {}, "code": "x"}', ("code",), "Extra inputs are not permitted"),
        ('{"method": 3, "config": {}, "extra": {}}', ("method",), "Input should be a valid string"),
    ],
)
def test_wrong_fields_of_a_config_are_refused(folder: Path, content: str, field: tuple[str, ...], message: str) -> None:
    """The error names the field; `harness.run.predict` puts the file in front of it."""
    (folder / CONFIG_FILE).write_text(content)
    with unchanged(tuned_model("memvp", seed=2).method) as method, pytest.raises(ValidationError) as error:
        load_adapter_state(folder, method)
    (first,) = error.value.errors()
    assert first["loc"] == field and first["msg"].startswith(message)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_pipe_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name}: is a pipe" in refused(folder)


def test_a_config_as_long_as_none_is_not_read(folder: Path) -> None:
    with (folder / CONFIG_FILE).open("ab") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ValueError, match="larger than 8 MiB"):
        load_adapter(folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    assert "give a folder that holds a saved adapter" in refused(tmp_path)


def test_a_method_on_the_meta_device_is_enough_to_compare_shapes(folder: Path) -> None:
    with torch.device("meta"):
        check_adapter(folder, tuned_model("memvp").method)
        other = tuned_model("memvp", memory_length=900_000).method
    with pytest.raises(ValueError, match=r"has shape \(20, 64\), but this config and backbone need \(900000, 64\)"):
        check_adapter(folder, other)


def test_a_value_that_json_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_adapter(tmp_path, tuned_model("memvp").method, {"backbone": object()}, write_atomic)
    assert not list(tmp_path.iterdir())
