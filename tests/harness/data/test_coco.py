"""Reading Karpathy's form of COCO Captions."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.data import coco
from harness.data.check import check_coco
from harness.data.coco import OFFICIAL_SIZES, load_coco
from harness.data.imagefile import check_images
from harness.errors import UserError


def entry(number: int, split: str, **changes: Any) -> dict[str, Any]:
    return {
        "filepath": "val2014",
        "filename": f"{number}.png",
        "split": split,
        "cocoid": number,
        "imgid": number - 1,
        "sentences": [{"raw": f"A {number}.", "tokens": ["a", str(number)]}, {"raw": "Another."}],
        **changes,
    }


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = [entry(n, s) for n, s in enumerate(("train", "restval", "val", "test"), 1)]
        (root / "val2014").mkdir()
        for number in range(1, 5):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(root / "val2014" / f"{number}.png")
        self.write()

    def write(self, dataset: Any = "coco") -> None:
        text = json.dumps({"dataset": dataset, "images": self.images})
        (self.root / "dataset_coco.json").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_train_takes_restval(folder):
    data = load_coco(folder.root)
    assert {split: [image.qid for image in images] for split, images in data.splits.items()} == {
        "train": ["1", "2"],
        "val": ["3"],
        "test": ["4"],
    }
    image = data.splits["test"][0]
    assert image.image == folder.root / "val2014" / "4.png" and image.captions == ("A 4.", "Another.")
    assert data.name == "coco-subset"
    assert load_coco(folder.root, splits=("train",), limit=1).used_sizes == {"train": 1}


def test_images_may_lie_in_a_folder_of_their_own(folder):
    (folder.root / "images").mkdir()
    (folder.root / "val2014").rename(folder.root / "images" / "val2014")
    assert check_images(load_coco(folder.root).all_samples()) == []


def test_image_id_without_cocoid(folder):
    del folder.images[3]["cocoid"]
    folder.images[3]["imgid"] = 77
    folder.write("world")
    data = load_coco(folder.root)
    assert data.splits["test"][0].qid == "77" and data.name == "world"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": "../../4.png"}, "image 4, field 'filename'.*leaves"),
        ({"filepath": "/etc"}, "image 4, field 'filename'.*leaves"),
        ({"filename": "missing.png"}, "image 4, field 'filename'.*missing"),
        ({"split": "dev"}, "image 4, field 'split'"),
        ({"sentences": []}, "image 4, field 'sentences'"),
        ({"sentences": [{"raw": ""}]}, r"image 4, field 'sentences\.0\.raw'"),
        ({"cocoid": "4"}, "field 'cocoid'"),
        ({"cocoid": None, "imgid": None}, "image number 4"),
        ({"cocoid": 1}, "image 1 occurs twice"),
    ],
)
def test_bad_record_is_named(folder, changes, message):
    folder.images[3] |= changes
    folder.write()
    with pytest.raises(UserError, match=message):
        load_coco(folder.root)


def test_an_absolute_path_is_refused_beside_a_folder_of_images_too(folder):
    (folder.root / "images").mkdir()
    folder.images[3]["filepath"] = "/etc"
    folder.write()
    with pytest.raises(UserError, match=r"image 4, field 'filename'.*leaves the data root"):
        load_coco(folder.root)


@pytest.mark.parametrize("name", ["../up", "a/b", "", 7, None])
def test_a_set_is_not_called_a_path(folder, name):
    folder.write(name)
    with pytest.raises(UserError, match="field 'dataset'"):
        load_coco(folder.root)


def test_a_bad_picture_is_named_by_its_image(folder):
    (folder.root / "val2014" / "4.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"^image 4, field 'image'.*--skip-bad-images"):
        load_coco(folder.root).checked()


def test_the_hash_of_a_checked_set_follows_its_pictures(folder):
    before = load_coco(folder.root).checked()
    assert set(before.sha256) == {"dataset_coco.json", "images"}
    assert load_coco(folder.root).checked().data_hash == before.data_hash
    Image.new("RGB", (4, 4), (9, 9, 9)).save(folder.root / "val2014" / "4.png")
    assert load_coco(folder.root).checked().data_hash != before.data_hash


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": {}}', "x"])
def test_other_json(folder, text):
    (folder.root / "dataset_coco.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset_coco\.json"):
        load_coco(folder.root)


def test_full_counts(folder, monkeypatch):
    assert OFFICIAL_SIZES == {"train": 113_287, "val": 5_000, "test": 5_000}
    with pytest.raises(UserError, match="113287"):
        load_coco(folder.root, full=True)
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", {"train": 2, "val": 1, "test": 1})
    assert load_coco(folder.root, full=True, limit=1).name == "coco"


def test_report(folder):
    (folder.root / "val2014" / "1.png").write_bytes(b"x")
    (folder.root / "val2014" / "2.png").unlink()
    (folder.root / "val2014" / "4.png").write_bytes((folder.root / "val2014" / "3.png").read_bytes())
    report = check_coco(folder.root)
    assert [bad.qid for bad in report.bad_images] == ["2", "1"] and not report.ok
    assert report.counts["train"] == {"images": 2, "images present": 1, "images readable": 0, "captions": 2}
    assert report.duplicates == (("val/3", "test/4"),)


def test_real_images(real_data: Path):
    report = check_coco(real_data / "coco")
    assert report.ok and {split: counts["images"] for split, counts in report.counts.items()} == {
        "train": 30,
        "val": 21,
        "test": 22,
    }
