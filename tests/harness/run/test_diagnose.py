"""What a run keeps of a method's inside."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.data.collate import Example
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.records import Diagnostics, read_diagnostics, read_questions, read_records, record_path
from harness.run.diagnose import MOST_IMAGES, diagnose, looked_at
from methods.base import Batch, VisualFeatures
from methods.tuned import TunedModel
from tests.backbones import tuned_model
from tests.command_line import Run


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Five samples with different images."""
    found = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((16, 16), 40.0 * (number + 1)).convert("RGB").save(path)
        found.append(Example(str(number), "a", None, path))
    return found


def shown(name: str, examples: list[Example], kept: set[str], batch_size: int) -> Diagnostics | None:
    torch.manual_seed(0)
    model = tuned_model(name)
    preprocessor = ImagePreprocessor(model.vision.image_size, *STATISTICS["imagenet"])
    return diagnose(model, examples, kept, preprocessor, batch_size, "0" * 16)


def test_the_means_are_over_all_images_whatever_the_batches(examples: list[Example]) -> None:
    everything = shown("dehvf", examples, {str(n) for n in range(5)}, 5)
    in_parts = shown("dehvf", examples, {"3"}, 2)
    assert everything is not None and in_parts is not None and everything.images == in_parts.images == 5
    for whole, part in zip(everything.matrices, in_parts.matrices, strict=True):
        assert torch.tensor(part.mean) == pytest.approx(torch.tensor(whole.mean), rel=2e-3)
        assert list(part.samples) == ["3"]
        assert torch.tensor(part.samples["3"]) == pytest.approx(torch.tensor(whole.samples["3"]), rel=2e-3)
        mean = torch.tensor(list(whole.samples.values())).mean(dim=0)
        assert torch.tensor(whole.mean) == pytest.approx(mean, rel=2e-3)


def test_evenly_spread_images_and_those_that_are_kept_are_looked_at() -> None:
    model = tuned_model("dehvf")
    many = [Example(str(number), "a") for number in range(4 * MOST_IMAGES)]
    chosen = looked_at(model, many, {"3", "5", "absent"})
    assert [int(example.id) for example in chosen] == sorted({3, 5, *range(0, len(many), 4)})
    assert looked_at(model, many[:7], {"3"}) == many[:7]


def test_no_gradient_is_kept(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = []
    encode = TunedModel.encode

    def noting(model: TunedModel, batch: Batch) -> VisualFeatures:
        enabled.append(torch.is_grad_enabled())
        return encode(model, batch)

    monkeypatch.setattr(TunedModel, "encode", noting)
    assert shown("dehvf", examples, set(), 2) is not None
    assert enabled == [False] * 3


def test_a_method_that_shows_nothing_has_none(examples: list[Example]) -> None:
    assert looked_at(tuned_model("memvp"), examples, {"3"}) == []
    assert shown("dehvf", [], set(), 2) is None


@pytest.mark.slow
def test_a_run_keeps_questions_and_diagnostics_and_the_page_shows_them(
    call: Run, base: list[str], tmp_path: Path
) -> None:
    done = call(*base, "--methods", "dehvf,memvp")
    assert done.code == 0
    results = tmp_path / "results"
    kept = {run.method: read_diagnostics(record_path(run, results)) for run in read_records(results)}
    assert kept["memvp"] is None and kept["dehvf"] is not None
    images = kept["dehvf"].images
    assert f"dehvf seed 0: looking inside: {images}/{images} (100 %)" in done.out
    assert "memvp seed 0: looking inside" not in done.out
    run = read_records(results)[0]
    questions = read_questions(run.task, run.data, results)
    assert questions is not None
    pictured = {question.qid for question in questions.questions if question.image}
    assert pictured and all(set(matrix.samples) == pictured for matrix in kept["dehvf"].matrices)
    assert call("report", "--results", results, "--out", tmp_path / "site").code == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count('data-inside="inside-') == 2 and page.count('<article class="card"') == len(questions.questions)
