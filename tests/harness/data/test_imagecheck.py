"""Checking all images of a set: each is read and decoded once, and a second check reads only what has changed."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.data import imagecheck, known_images
from harness.data.check import check_scienceqa
from harness.data.dataset import DataSet
from harness.data.problem import Problem
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image is decoded by a check, by the number of its problem."""
    counts: Counter[str] = Counter()
    decode = imagecheck.decode_image

    def counting(content: bytes, path: Path) -> Image.Image:
        counts[path.parent.name] += 1
        return decode(content, path)

    monkeypatch.setattr(imagecheck, "decode_image", counting)
    return counts


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, in which the verdicts on new files and small sets are kept too."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(known_images, "MIN_IMAGES", 1)
    monkeypatch.setattr(known_images, "SETTLED_NS", -(10**9))
    return folder


def kept_file(cache: Path) -> Path:
    (file,) = cache.rglob("*.json")
    return file


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(root: Path, said: list[str] | None = None, skip_bad: bool = False) -> DataSet[Problem]:
    say: Callable[[str], None] = (lambda line: None) if said is None else said.append
    return load_scienceqa(root).checked(skip_bad, say)


def test_each_image_is_decoded_once_and_hashed_as_it_is(folder, cache, decoded):
    data = check(folder.root)
    assert decoded == {"1": 1, "4": 1}
    assert {path: hash_of(path) for path in data.image_sha256} == data.image_sha256 and len(data.image_sha256) == 2


def test_a_second_check_decodes_nothing_and_finds_the_same(folder, cache, decoded):
    first, second = check(folder.root), check(folder.root)
    assert decoded == {"1": 1, "4": 1} and second == first


def test_a_report_reads_every_image_again_but_only_once(folder, cache, decoded):
    check(folder.root)
    assert check_scienceqa(folder.root).sha256["images"] == check(folder.root).sha256["images"]
    assert decoded == {"1": 2, "4": 2}


def other_size(path: Path) -> None:
    Image.new("RGB", (40, 30), (1, 2, 3)).save(path)


def other_time(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def other_content(path: Path) -> None:
    """Change one byte of the file and put its time back."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [other_size, other_time, other_content])
def test_a_changed_file_is_checked_again(folder, cache, decoded, change):
    check(folder.root)
    change(folder.image_path("test", "4"))
    after = check(folder.root, skip_bad=True)
    assert decoded == {"1": 1, "4": 2}
    assert all(hash_of(path) == digest for path, digest in after.image_sha256.items())


def test_a_file_that_has_just_changed_is_not_kept(folder, cache, decoded, monkeypatch):
    monkeypatch.setattr(known_images, "SETTLED_NS", 3600 * 10**9)
    check(folder.root), check(folder.root)
    assert decoded == {"1": 2, "4": 2}


def test_another_version_of_the_check_knows_no_image(folder, cache, decoded, monkeypatch):
    check(folder.root)
    monkeypatch.setattr(known_images, "RULES", known_images.RULES + 1)
    said: list[str] = []
    check(folder.root, said)
    assert decoded == {"1": 2, "4": 2} and said == []


def test_a_bad_image_is_reported_each_time_and_the_good_ones_are_kept(folder, cache, decoded):
    folder.image_path("test", "4").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(UserError, match=r"^problem 4, field 'image': .*cannot identify.*--skip-bad-images`$"):
            check(folder.root)
    assert [bad.qid for bad in check(folder.root, skip_bad=True).skipped] == ["4"]
    assert decoded == {"1": 1, "4": 3}


def test_the_first_bad_image_is_named_whichever_is_found_first(folder, cache):
    for split, qid in (("train", "1"), ("test", "4")):
        folder.image_path(split, qid).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^problem 1, "):
        check(folder.root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"checker": "x", "images": 1}',
        b'{"checker": "x", "images": {"a": [1, 2, "3", "y"]}}',
        b'{"checker": "x", "images": {}, "more": 1}',
    ],
)
def test_a_damaged_cache_is_one_line_and_made_again(folder, cache, decoded, content):
    before = check(folder.root)
    whole = kept_file(cache).read_bytes()
    kept_file(cache).write_bytes(content)
    said: list[str] = []
    assert check(folder.root, said) == before
    assert len(said) == 1 and str(kept_file(cache)) in said[0] and "damaged" in said[0]
    assert json.loads(kept_file(cache).read_bytes()) == json.loads(whole)
    assert check(folder.root, said) == before and len(said) == 1 and decoded == {"1": 2, "4": 2}


def test_names_outside_the_folder_in_the_cache_change_nothing(folder, cache, decoded):
    before = check(folder.root)
    kept = json.loads(kept_file(cache).read_bytes())
    kept["images"]["../../etc/passwd"] = [0, 0, 0, "0" * 64]
    kept_file(cache).write_text(json.dumps(kept))
    assert check(folder.root) == before and decoded == {"1": 1, "4": 1}


def test_a_cache_that_cannot_be_written_is_said_once_and_does_not_stop(folder, cache, decoded):
    (cache / "peft-vl-bench").write_text("a file where the folder should be")
    said: list[str] = []
    check(folder.root, said)
    assert len(said) == 1 and "every run checks all images again" in said[0] and str(cache) in said[0]
    assert decoded == {"1": 1, "4": 1}


def test_a_user_without_a_home_folder_is_told_so_once(folder, cache, decoded, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what Python does without a home folder
    said: list[str] = []
    check(folder.root, said)
    assert len(said) == 1 and "XDG_CACHE_HOME" in said[0] and decoded == {"1": 1, "4": 1}


def test_a_small_set_leaves_no_file(folder, cache, decoded, monkeypatch):
    monkeypatch.setattr(known_images, "MIN_IMAGES", 3)
    check(folder.root), check(folder.root)
    assert list(cache.rglob("*.json")) == [] and decoded == {"1": 2, "4": 2}
