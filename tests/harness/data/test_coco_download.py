"""COCO Captions from its authors' pages, against archives that a server on this machine has."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from zipfile import ZipFile

import pytest
from huggingface_hub.utils import close_session

from harness import disk, hub
from harness.data import coco, coco_download
from harness.data.coco import load_coco
from harness.data.coco_download import Archive, fetch_coco
from harness.data.places import fetch_data
from harness.errors import UserError
from tests.harness.data.conftest import CocoFolder
from tests.standin_hub import Hub, Repository, hub_on_this_machine

SIZES = {"train": 2, "val": 1, "test": 1}


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The pages of COCO and of Karpathy, with four images."""
    (tmp_path / "set").mkdir()
    made = CocoFolder(tmp_path / "set")
    (tmp_path / "set/train2014").mkdir()
    (tmp_path / "set/val2014/1.png").rename(tmp_path / "set/train2014/1.png")
    made.images[0]["filepath"] = "train2014"
    made.write()
    archives = tmp_path / "archives"
    archives.mkdir()
    for name, members in (("train2014", "train2014/*"), ("val2014", "val2014/*"), ("caption_datasets", "*.json")):
        with ZipFile(archives / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / "set").glob(members)):
                archive.write(path, path.relative_to(tmp_path / "set"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", SIZES)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    close_session()
    with hub_on_this_machine() as served:
        served.models["the/pages"] = Repository(archives)

        def archive_of(name: str) -> Archive:
            content = (archives / f"{name}.zip").read_bytes()
            url = f"{served.address}/the/pages/resolve/main/{name}.zip"
            return Archive(url, len(content), hashlib.md5(content).hexdigest())

        monkeypatch.setattr(coco_download, "KARPATHY", archive_of("caption_datasets"))
        monkeypatch.setattr(coco_download, "IMAGES", {name: archive_of(name) for name in coco_download.FOLDERS})
        yield served
    close_session()


def fetched(root: Path, images: Path | None = None) -> list[str]:
    said: list[str] = []
    fetch_coco(root, said.append, images)
    return said


def test_everything_is_fetched_and_counted(pages: Hub, tmp_path: Path) -> None:
    said = fetched(tmp_path / "coco")
    assert "licence: captions CC BY 4.0" in said[0] and str(tmp_path / "coco") in said[0]
    assert load_coco(tmp_path / "coco", full=True).checked().used_sizes == SIZES
    assert {path.name for path in (tmp_path / "coco").iterdir()} == {"dataset_coco.json", "train2014", "val2014"}


def test_a_fetch_that_failed_goes_on(pages: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", {**SIZES, "val": 5})
    with pytest.raises(UserError, match="declared as the full COCO Captions but has train 2, val 1"):
        fetched(tmp_path / "coco")
    assert not (tmp_path / "coco").exists()
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", SIZES)
    pages.requests.clear()
    fetched(tmp_path / "coco")
    assert pages.downloads() == []


def test_a_partial_archive_is_completed(pages: Hub, tmp_path: Path) -> None:
    archive = coco_download.IMAGES["train2014"]
    whole = (tmp_path / "archives/train2014.zip").read_bytes()
    (tmp_path / "coco.partial").mkdir()
    (tmp_path / "coco.partial/train2014.zip.partial").write_bytes(whole[: archive.size // 2])
    fetched(tmp_path / "coco")
    assert pages.ranges == [f"bytes={archive.size // 2}-"]


def test_an_archive_without_a_published_hash_may_change(
    pages: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = coco_download.KARPATHY.size
    for other in (size - 1, size + 1):
        monkeypatch.setattr(coco_download, "KARPATHY", Archive(coco_download.KARPATHY.url, other))
        fetched(tmp_path / f"coco{other}")
    # What an earlier try has of a larger one does not stop the download for ever.
    (tmp_path / "coco.partial").mkdir()
    (tmp_path / "coco.partial/caption_datasets.zip.partial").write_bytes(bytes(size + 1))
    fetched(tmp_path / "coco")


def test_no_archive_is_published(pages: Hub, tmp_path: Path) -> None:
    """An earlier try was killed before it removed an archive, and another one before an archive was complete."""
    partial = tmp_path / "coco.partial"
    partial.mkdir()
    for name in ("train2014", "val2014"):
        (partial / name).symlink_to(tmp_path / "set" / name)
    for name in ("train2014.zip", "val2014.zip.partial"):
        (partial / name).write_bytes(b"left over")
    (partial / "unpacking").mkdir()
    fetched(tmp_path / "coco", tmp_path / "set")
    assert {path.name for path in (tmp_path / "coco").iterdir()} == {"dataset_coco.json", "train2014", "val2014"}


def test_a_damaged_archive_is_not_believed(pages: Hub, tmp_path: Path) -> None:
    pages.damaged.add("val2014.zip")
    with pytest.raises(UserError, match=r"val2014\.zip: arrived damaged .* was removed"):
        fetched(tmp_path / "coco")
    pages.damaged.clear()
    fetched(tmp_path / "coco")


@pytest.mark.parametrize("under", ["", "images"])
def test_images_that_are_there_are_linked(under: str, pages: Hub, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / under).mkdir(parents=True)
    for name in coco_download.FOLDERS:
        (tmp_path / "set" / name).rename(disk / under / name)
    fetched(tmp_path / "coco", disk)
    assert pages.downloads() == ["caption_datasets.zip"]
    linked = load_coco(tmp_path / "coco", full=True).checked()
    assert linked.used_sizes == SIZES and (tmp_path / "coco/train2014").is_symlink()
    # A set has the same hash wherever its images are.
    for name in coco_download.FOLDERS:
        (tmp_path / "coco" / name).unlink()
        (disk / under / name).rename(tmp_path / "coco" / name)
    assert load_coco(tmp_path / "coco").checked().data_hash == linked.data_hash


def test_a_folder_without_the_images_is_refused(pages: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images .*: has no train2014/ and val2014/"):
        fetched(tmp_path / "coco", tmp_path / "archives")


def test_offline_says_the_same(pages: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"not on this machine: COCO Captions .*data fetch coco"):
        fetched(tmp_path / "coco")
    # Where the images are here, the split file alone is missing.
    with pytest.raises(UserError, match=r"not on this machine: Karpathy's split file .*data fetch coco"):
        fetched(tmp_path / "coco", tmp_path / "set")


@pytest.mark.parametrize("linked_first", [False, True])
def test_a_fetch_goes_on_with_or_without_linked_images(
    linked_first: bool, pages: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", {**SIZES, "val": 5})
    with pytest.raises(UserError, match="declared as the full COCO Captions"):
        fetched(tmp_path / "coco", tmp_path / "set" if linked_first else None)
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", SIZES)
    fetched(tmp_path / "coco", None if linked_first else tmp_path / "set")
    # What was downloaded stays; a link of the first try does not stand for what the second one downloads.
    assert not (tmp_path / "coco" / "train2014").is_symlink()
    assert load_coco(tmp_path / "coco", full=True).checked().used_sizes == SIZES


def test_too_little_space_names_the_folder_of_the_data(
    pages: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(UserError, match=r"coco.*has 0 B free, .*data fetch coco --data-root DIR`") as error:
        fetched(tmp_path / "coco")
    assert "HF_HOME" not in str(error.value)


@pytest.mark.parametrize("linked", [False, True])
def test_a_second_fetch_waits_for_the_first(linked: bool, pages: Hub, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    pages.stall_after["train2014.zip"] = 100
    said: Queue[str] = Queue()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetch_data, "coco", root, lambda line: None)
        assert pages.stalled.wait(timeout=60)
        second = threads.submit(fetch_data, "coco", root, said.put, tmp_path / "set" if linked else None)
        try:
            assert said.get(timeout=60) == f"another command is making {root}; waiting for it"
            assert pages.downloads() == ["train2014.zip"]
        finally:
            pages.release.set()
        first.result(timeout=60)
        second.result(timeout=60)
    assert (
        said.empty() and pages.downloads().count("val2014.zip") == pages.downloads().count("caption_datasets.zip") == 1
    )
    assert load_coco(root, full=True).checked().used_sizes == SIZES and not (root / "train2014").is_symlink()
    # What was there before is not taken for what has just been made.
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        fetch_data("coco", root, said.put)
