"""Data sets, their images, and predictions for them."""

import json
import random
from pathlib import Path

from tests.fuzz.kind import command, one_file


def make_scienceqa(folder: Path) -> None:
    """Write a small ScienceQA set, and predictions for it."""
    from tests.harness.data.conftest import ScienceQAFolder

    ScienceQAFolder(folder)
    rows = [{"qid": "4", "choice": 1, "gold": 1}, {"qid": "10", "choice": None, "gold": 0}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.json").write_text(
        json.dumps({"results": {"4": 1, "10": 0}, "outputs": {"4": "The answer is A."}})
    )
    (folder / "plain.json").write_text(json.dumps({"4": 1, "10": 0}))


def use_scienceqa(folder: Path) -> None:
    """Check the set, and score the predictions."""
    command("data", "check", "scienceqa", "--data-root", folder)
    use_predictions(folder)


def use_predictions(folder: Path) -> None:
    """Score every file of predictions. A file that is refused does not spare the others."""
    from harness.errors import UserError

    files = ["--problems", folder / "problems.json", "--splits", folder / "pid_splits.json"]
    refusals = []
    for name in ("rows.jsonl", "results.json", "plain.json"):
        try:
            command("score", "scienceqa", *files, "--predictions", folder / name)
        except UserError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def make_coco(folder: Path) -> None:
    """Write a small caption set, and predicted captions."""
    from tests.harness.data.conftest import CocoFolder

    CocoFolder(folder)
    captions = [{"image_id": number, "caption": "a cat"} for number in (3, 4)]
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "annotations.json").write_text(json.dumps({"images": [{"id": 3}], "annotations": captions}))


def use_coco(folder: Path) -> None:
    """Check the set, and read what a scorer reads. Scoring itself starts Java."""
    from harness.evaluation.score_coco import read_captions, read_references

    command("data", "check", "coco", "--data-root", folder)
    read_references(folder / "dataset_coco.json")
    read_references(folder / "annotations.json")
    read_captions(folder / "captions.json")


def make_images(folder: Path) -> None:
    """Write images of several formats."""
    from PIL import Image

    noise = Image.effect_noise((48, 32), 60)
    noise.convert("RGB").save(folder / "a.png")
    noise.convert("P").save(folder / "b.png", transparency=0)
    noise.convert("I;16").save(folder / "c.png")
    noise.convert("RGB").save(folder / "d.jpg", progressive=True, quality=30)
    noise.convert("CMYK").save(folder / "e.jpg")
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x8769] = 6, 72.0, {0x9003: "2026:01:01 00:00:00"}
    noise.convert("RGB").save(folder / "f.jpg", exif=exif, icc_profile=b"profile" * 20, comment=b"noise")
    noise.convert("RGB").save(folder / "g.png", exif=exif, icc_profile=b"profile" * 20)
    noise.convert("RGB").save(folder / "h.jpg", "MPO", save_all=True, append_images=[noise.convert("RGB")])


def change_image(folder: Path, chance: random.Random) -> str:
    """Change one of the images, and remove the others, which would only be decoded once more."""
    name = one_file("*")(folder, chance)
    for path in folder.iterdir():
        if path.name != name:
            path.unlink()
    return name


def use_images(folder: Path) -> None:
    """Decode and resize every image."""
    from harness.data.imagefile import load_image
    from harness.data.images import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessor

    preprocess = ImagePreprocessor(224, IMAGENET_MEAN, IMAGENET_STD)
    for path in sorted(folder.iterdir()):
        preprocess(load_image(path))
