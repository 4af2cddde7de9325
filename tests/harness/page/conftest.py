"""A results folder of a few synthetic records, and the page that is made from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from harness.page.build import write_page
from harness.records import (
    DiagnosticMatrix,
    Diagnostics,
    Question,
    Questions,
    Record,
    StepMeasured,
    make_history,
    read_records,
    record_path,
    samples_folder,
    write_diagnostics,
    write_history,
    write_predictions,
    write_questions,
    write_record,
)
from tests.record_factory import NINE, WHY, make, speed

HOSTILE = "</script><script>alert('record')</script><img src=x onerror=alert(1)>"
"""Text that a record may contain, and that must stay text."""


def keep(record: Record, results: Path, choices: list[int] | None = None) -> Record:
    """Write a record, a history of three steps, and one prediction for each choice; the right choice is 0."""
    path = write_record(record, results)
    steps = [StepMeasured(step, 3.0 / step, 0.01, 4, 0.1) for step in (1, 2, 3)]
    if record.kind == "train":
        write_history(path, make_history(record.spec_hash, steps))
    if choices is not None:
        rows = [{"qid": str(i), "choice": c, "gold": 0, "columns": NINE} for i, c in enumerate(choices)]
        write_predictions(path, rows)
    return record


def timing(ratio: float) -> dict[str, object]:
    """Return one timed phase with a ratio to the baseline and its interval."""
    spread = {"median": ratio, "p10": ratio - 0.2, "p90": ratio + 0.2, "ci_low": ratio - 0.1, "ci_high": ratio + 0.1}
    return {"median_s": 0.1 * ratio, "p10_s": 0.05, "p90_s": 0.3, "n": 20, "ratio": spread}


def fill(results: Path) -> None:
    """Write records of two methods with two seeds, captions, times, a hostile failure, and everything beside them."""
    times = {
        "times_s": {
            "load": 1,
            "data": 1,
            "train_step_median": 0.2,
            "train_step_p90": 0.3,
            "train": 9,
            "eval": 1,
            "scoring": 1,
        },
        "missing": {name: why for name, why in WHY.items() if name not in ("parameters", "times_s")},
    }
    for seed in (0, 1):
        keep(make("memvp", seed, 50.0 - 25 * seed, **times), results, [0, seed, 1, 1])
        keep(make("dehvf", seed, 75.0, **times), results, [0, 1, 0, 0])
    keep(make("memvp", model="7b", value=93.0), results)
    image = "samples/coco/small-0123456789abcdef/7.png"
    (results / image).parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), "teal").save(results / image)
    sample = {"image_id": "7", "image": image, "caption": HOSTILE, "references": ["a teal square"]}
    scores = {"BLEU-4": {"value": 30.0, "n": 1, "stderr": 1.0}, "CIDEr": {"value": 90.0, "n": 1, "stderr": 1.0}}
    keep(make("lavin", task="coco", metrics=scores, samples=[sample]), results)
    question = {"question": HOSTILE, "options": ["yes", "no"], "gold": 0, "hint": "a hint", "category": "Birds"}
    data = make().data
    picture = (samples_folder("scienceqa", data) / "1.png").as_posix()
    (results / picture).parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(results / picture)
    kept = [Question(qid="0", **question), Question(qid="1", image=picture, **{**question, "category": "Maps"})]
    write_questions("scienceqa", data, results, Questions(questions=kept))
    matrix = DiagnosticMatrix(
        name="figure3",
        title="Weights",
        about=HOSTILE,
        rows="layer",
        columns="block",
        row_labels=["0", "1"],
        column_labels=["1", "2"],
        mean=[[0.25, 0.75], [0.5, 0.5]],
        samples={"1": [[0.0, 1.0], [1.0, 0.0]]},
    )
    shows = next(run for run in read_records(results) if run.method == "dehvf" and run.seed == 0)
    kept_inside = Diagnostics(spec_hash=shows.spec_hash, images=9, matrices=[matrix])
    write_diagnostics(record_path(shows, results), kept_inside)
    for method, ratio in (("memvp", 1.0), ("dehvf", 1.2)):
        section = {"phases": {"train": timing(ratio), "inference": timing(ratio)}, "loaded": False}
        keep(speed(method, 0.1, 0.1), results)
        keep(make(method, kind="speed", metrics={}, speed=section, backbone={"weights": "random"}), results)
    keep(make("lavin", model=HOSTILE, status="failed").model_copy(update={"error": HOSTILE}), results)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the synthetic records."""
    folder = tmp_path_factory.mktemp("page") / "results"
    fill(folder)
    return folder


@pytest.fixture(scope="session")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page made from them."""
    yield write_page(results, tmp_path_factory.mktemp("site"))
