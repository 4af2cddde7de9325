"""Downloads from the model hub, against a stand-in on this machine."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from harness import disk, hub, hub_blobs
from harness.errors import UserError
from harness.hub import Source, cached_file, download, hub_reachable
from harness.numbers import readable_size
from tests.standin_hub import Hub, Repository, hub_on_this_machine, proxy_on_this_machine, use

SOURCE = Source("a small model", "some/model", ("*.json", "*.bin"), "give a folder")
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.bin").write_bytes(CONTENT)
    (folder / "README.md").write_text("not wanted")
    with hub_on_this_machine() as served:
        served.models["some/model"] = Repository(folder, licence="mit")
        use(served.address, tmp_path / "cache", monkeypatch)
        yield served
    close_session()


def written(cache: Path) -> int:
    """Return how many bytes of an unfinished download are on the disk."""
    return sum(path.stat().st_size for path in cache.rglob("*.partial"))


def fetched() -> list[str]:
    """Download the source and return the lines that were said."""
    said: list[str] = []
    download(SOURCE, said.append)
    return said


def test_a_download_says_what_it_is_and_is_complete(standin: Hub) -> None:
    said = fetched()
    size = readable_size(len(CONTENT) + 2)
    assert said[0] == (
        f"downloading a small model ({size}, licence: mit) from {standin.address}/some/model "
        f"into {constants.HF_HUB_CACHE}"
    )
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT
    assert cached_file("some/model", "README.md") is None
    assert sorted(standin.downloads()) == ["config.json", "weights.bin"]


def test_what_is_there_is_not_downloaded_again(standin: Hub) -> None:
    fetched()
    standin.requests.clear()
    fetched()
    assert standin.downloads() == []


def test_a_broken_connection_goes_on_where_it_broke(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    standin.cut_after["weights.bin"] = 1000
    fetched()
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT
    assert standin.ranges == ["bytes=1000-"]


def test_a_killed_download_goes_on_where_it_was(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_blobs, "RESUMED_FROM", 1)
    standin.stall_after["weights.bin"] = len(CONTENT) // 2
    code = (
        "from harness import hub, hub_blobs; hub.constants.DOWNLOAD_CHUNK_SIZE = 500; hub_blobs.RESUMED_FROM = 1; "
        "hub.download(hub.Source('a small model', 'some/model', ('*.json', '*.bin'), 'give a folder'), print)"
    )
    env = {**os.environ, "HF_ENDPOINT": standin.address, "HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
    while not standin.stalled.wait(timeout=0.1):
        assert process.poll() is None, "the download ended"
    begun = time.monotonic()
    while written(Path(constants.HF_HUB_CACHE)) < len(CONTENT) // 4 and time.monotonic() < begun + 10:
        time.sleep(0.05)
    process.kill()
    process.wait()
    standin.release.set()
    assert cached_file("some/model", "weights.bin") is None, "half a file must not be believed"
    fetched()
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT
    (given,) = standin.ranges
    assert int(given.removeprefix("bytes=").removesuffix("-")) > len(CONTENT) // 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_a_cache_without_locks_is_refused(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker file in place of a lock would outlive a download that is killed, and stop every later one."""

    def no_flock(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_flock)
    with pytest.raises(UserError, match=r"cannot be locked .*; set HF_HOME to a folder on another file system"):
        fetched()


def test_a_damaged_file_is_not_believed(standin: Hub) -> None:
    standin.damaged.add("weights.bin")
    with pytest.raises(UserError, match=r"weights\.bin arrived damaged .* was removed; run the same command again"):
        fetched()
    assert cached_file("some/model", "weights.bin") is None
    standin.damaged.clear()
    fetched()
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT


@pytest.mark.parametrize("resumed_from", [1, 10**7])
def test_a_file_is_in_the_cache_only_when_its_hash_was_compared(
    resumed_from: int, standin: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that ends between its last download and the check of all files must not leave a damaged one."""

    def ends(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub_blobs, "RESUMED_FROM", resumed_from)
    monkeypatch.setattr(hub.HfApi, "verify_repo_checksums", ends)
    standin.damaged.add("weights.bin")
    with pytest.raises((UserError, KeyboardInterrupt)):
        fetched()
    assert cached_file("some/model", "weights.bin") is None
    with pytest.raises(UserError, match=r"weights\.bin arrived damaged .* was removed; run the same command again"):
        fetched()
    standin.damaged.clear()
    with pytest.raises(KeyboardInterrupt):
        fetched()
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT


def test_a_small_file_alone_is_checked(standin: Hub) -> None:
    standin.damaged.add("config.json")
    with pytest.raises(UserError, match=r"config\.json arrived damaged"):
        hub.download_small(SOURCE, "config.json", lambda line: None)
    assert cached_file("some/model", "config.json") is None
    standin.damaged.clear()
    standin.named_by_git = True
    assert hub.download_small(SOURCE, "config.json", lambda line: None).read_text() == "{}"
    with pytest.raises(UserError, match="has no other"):
        hub.download_small(SOURCE, "other.json", lambda line: None)


def test_a_file_in_git_is_compared_with_its_hash(standin: Hub) -> None:
    standin.named_by_git = True
    standin.damaged.add("config.json")
    with pytest.raises(UserError, match=r"config\.json arrived damaged"):
        hub.download_small(SOURCE, "config.json", lambda line: None)


def test_a_gated_model_says_where_to_ask(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    standin.models["some/model"].gated = True
    with pytest.raises(UserError, match=r"some/model: access is restricted; ask for it .*`hf auth login`.*HF_TOKEN"):
        fetched()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetched()
    assert cached_file("some/model", "weights.bin") is not None


def test_a_repository_that_is_not_there(standin: Hub) -> None:
    del standin.models["some/model"]
    with pytest.raises(UserError, match=r"some/model: there is no such repository, or it is private"):
        fetched()


def test_a_repository_without_the_files(standin: Hub) -> None:
    source = Source("weights", "some/model", ("*.safetensors",), "give a folder")
    with pytest.raises(UserError, match=r"has none of \*\.safetensors; give a folder"):
        download(source, lambda line: None)


def test_offline_says_the_same_and_asks_nothing(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"not on this machine: a small model .*switched off .*; give a folder"):
        fetched()
    assert standin.requests == []


def test_a_hub_that_is_away(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub_reachable()
    with pytest.raises(UserError, match=r"the model hub cannot be reached; give a folder"):
        fetched()


def test_a_hub_behind_a_proxy(standin: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_on_this_machine({"hub.invalid": standin.address}) as (proxy, seen):
        use("http://hub.invalid", tmp_path / "cache", monkeypatch)
        assert not hub_reachable()
        monkeypatch.setenv("HTTP_PROXY", proxy)
        close_session()
        assert hub_reachable()
        fetched()
    assert seen and all(address.startswith("http://hub.invalid/") for address in seen)
    assert cached_file("some/model", "weights.bin") is not None


def test_too_little_space(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"has 1 kB free, but 1\.0 MB are still to be written; .*HF_HOME"):
        fetched()


def test_what_is_there_already_needs_no_space(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_blobs, "RESUMED_FROM", 1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 200_000}))
    with pytest.raises(UserError, match="are still to be written"):
        fetched()
    blobs = Path(constants.HF_HUB_CACHE, "models--some--model", "blobs")
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(CONTENT).hexdigest()}.partial").write_bytes(CONTENT[:900_000])
    fetched()
    path = cached_file("some/model", "weights.bin")
    assert path is not None and path.read_bytes() == CONTENT
    assert standin.ranges == ["bytes=900000-"]


def test_a_repository_of_pickled_weights_says_so(standin: Hub) -> None:
    source = Source("a tower", "some/model", ("*.json", "*.safetensors"), "give another", essential=("*.safetensors",))
    with pytest.raises(UserError) as error:
        download(source, lambda line: None)
    assert str(error.value).endswith(
        "some/model: has none of *.safetensors (its weights.bin may be a pickle, which can run code); give another"
    )
    assert standin.downloads() == []


def test_the_cache_of_a_repository_with_a_wrong_name_is_empty() -> None:
    assert cached_file("no/such/name", "config.json") is None
