"""Reading COCO Captions in Karpathy's form."""

import pytest
from PIL import Image

from harness.data import coco
from harness.data.coco import OFFICIAL_SIZES, load_coco
from harness.errors import UserError


def test_train_takes_restval(coco_folder):
    data = load_coco(coco_folder.root)
    assert {split: [image.qid for image in images] for split, images in data.splits.items()} == {
        "train": ["1", "2"],
        "val": ["3"],
        "test": ["4"],
    }


def test_an_image_has_its_file_and_all_its_captions(coco_folder):
    image = load_coco(coco_folder.root).splits["test"][0]
    assert image.image == coco_folder.root / "val2014" / "4.png" and image.captions == ("A 4.", "Another.")


def test_a_part_of_coco_is_named_a_subset(coco_folder):
    assert load_coco(coco_folder.root).name == "coco-subset"


def test_a_limit_keeps_the_first_images_of_a_split(coco_folder):
    assert load_coco(coco_folder.root, splits=("train",), limit=1).used_sizes == {"train": 1}


def test_images_may_lie_in_a_folder_of_their_own(coco_folder):
    (coco_folder.root / "images").mkdir()
    (coco_folder.root / "val2014").rename(coco_folder.root / "images" / "val2014")
    assert load_coco(coco_folder.root).checked().skipped == ()


def test_the_hash_is_that_of_what_was_parsed(coco_folder, read_once):
    assert load_coco(coco_folder.root).sha256 == read_once and set(read_once) == {coco.ANNOTATIONS}


def test_image_id_without_cocoid(coco_folder):
    del coco_folder.images[3]["cocoid"]
    coco_folder.images[3]["imgid"] = 77
    coco_folder.write()
    assert load_coco(coco_folder.root).splits["test"][0].qid == "77"


def test_a_set_takes_its_name_from_the_file(coco_folder):
    coco_folder.write("world")
    assert load_coco(coco_folder.root).name == "world"


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
def test_bad_record_is_named(coco_folder, changes, message):
    coco_folder.images[3] |= changes
    coco_folder.write()
    with pytest.raises(UserError, match=message):
        load_coco(coco_folder.root)


def test_an_absolute_path_is_refused_beside_a_folder_of_images_too(coco_folder):
    (coco_folder.root / "images").mkdir()
    coco_folder.images[3]["filepath"] = "/etc"
    coco_folder.write()
    with pytest.raises(UserError, match=r"image 4, field 'filename'.*leaves the data root"):
        load_coco(coco_folder.root)


@pytest.mark.parametrize("name", ["../up", "a/b", "", 7, None])
def test_the_name_of_a_set_may_not_be_a_path(coco_folder, name):
    coco_folder.write(name)
    with pytest.raises(UserError, match="field 'dataset'"):
        load_coco(coco_folder.root)


def test_a_bad_picture_is_named_by_its_image(coco_folder):
    coco_folder.image_path(4).write_bytes(b"x")
    with pytest.raises(UserError, match=r"^image 4, field 'image'.*--skip-bad-images"):
        load_coco(coco_folder.root).checked()


def test_the_hash_of_a_checked_set_follows_its_pictures(coco_folder):
    before = load_coco(coco_folder.root).checked()
    assert set(before.sha256) == {"dataset_coco.json", "images"}
    assert load_coco(coco_folder.root).checked().data_hash == before.data_hash
    Image.new("RGB", (4, 4), (9, 9, 9)).save(coco_folder.image_path(4))
    assert load_coco(coco_folder.root).checked().data_hash != before.data_hash


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": {}}', "x"])
def test_other_json(coco_folder, text):
    (coco_folder.root / "dataset_coco.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset_coco\.json"):
        load_coco(coco_folder.root)


def test_a_full_set_must_have_the_official_sizes(coco_folder):
    assert OFFICIAL_SIZES == {"train": 113_287, "val": 5_000, "test": 5_000}
    with pytest.raises(UserError, match="113287"):
        load_coco(coco_folder.root, full=True)


def test_the_sizes_of_the_file_count_and_not_those_of_the_limit(coco_folder, monkeypatch):
    monkeypatch.setattr(coco, "OFFICIAL_SIZES", {"train": 2, "val": 1, "test": 1})
    assert load_coco(coco_folder.root, full=True, limit=1).name == "coco"
