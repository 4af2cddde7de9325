"""A stand-in for the model hub, and a run whose adapter is shared."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session

from methods.checkpoint import CONFIG_FILE
from tests import command_line
from tests.standin_hub import Hub, hub_on_this_machine, use


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub where `me` may upload, this process logged in to it, in an empty folder."""
    with hub_on_this_machine() as served:
        served.storage = tmp_path / "hub"
        use(served.address, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", served.token)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield served
    close_session()


def trained(results: Path, *arguments: object) -> Path:
    """Make a short run and return the folder of its adapter."""
    shorter = ["--methods", "memvp", "--steps", "2", "--limit", "6", "--device", "cpu", "--set", "batch_size=4"]
    done = command_line.call("run", *arguments, *shorter, "--results", results)
    assert done.code == 0, done.err
    return next((results / "adapters").rglob(CONFIG_FILE)).parent


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory, mini_set: Path) -> Path:
    """An adapter on the backbone that comes with the project."""
    return trained(tmp_path_factory.mktemp("packaged"), "--data-root", mini_set)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Path:
    """An adapter on a backbone in folders of this machine."""
    backbone = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}"]
    return trained(tmp_path_factory.mktemp("local"), "--data-root", mini_set, *backbone)
