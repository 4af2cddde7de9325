"""The mini benchmark: the same seed gives the same bytes, and text alone does not reveal the answers."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from harness.data.mini.build import Item, build_mini, file_text, record, sample_items
from harness.data.mini.grammar import describe
from harness.data.mini.questions import Draft
from harness.data.scienceqa import load_scienceqa

FIELDS = {
    "question", "choices", "answer", "hint", "image", "task", "grade", "subject", "topic", "category", "skill",
    "lecture", "solution", "split",
}  # fmt: skip
SMALL = (40, 10, 20)
COMMITTED = "904e95519be0176d3da3ffd6e711308b2f3d70ed2f406404ccc5bb457f98e3f9"
"""SHA-256 of `problems.json` in the committed records. It may change only together with `VERSION`."""


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return sample_items(0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    build_mini(root, seed=3, sizes=SMALL)
    return root


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    build_mini(tmp_path / "again", seed=3, sizes=SMALL)
    assert _digest(tmp_path / "again") == _digest(small)


def test_another_seed_gives_other_bytes(small: Path, tmp_path: Path) -> None:
    build_mini(tmp_path / "other", seed=4, sizes=SMALL)
    assert _digest(tmp_path / "other") != _digest(small)


def test_the_problems_are_those_of_the_committed_records(items: list[Item]) -> None:
    content = file_text({item.qid: record(item) for item in items}).encode()
    assert hashlib.sha256(content).hexdigest() == COMMITTED


def test_files_have_the_official_layout(small: Path) -> None:
    problems = json.loads((small / "problems.json").read_text())
    splits = json.loads((small / "pid_splits.json").read_text())
    assert [len(splits[name]) for name in ("train", "val", "test")] == list(SMALL)
    for qid, problem in problems.items():
        assert set(problem) == FIELDS
        assert qid in splits[problem["split"]]


def test_a_problem_with_a_picture_has_its_file_and_its_description(small: Path) -> None:
    scenes = json.loads((small / "scenes.json").read_text())
    for qid, problem in json.loads((small / "problems.json").read_text()).items():
        path = small / "images" / problem["split"] / qid / "image.png"
        assert (problem["image"] is not None) == path.exists() == (qid in scenes)
        if path.exists():
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((64, 64), "RGB")


def test_the_common_loader_reads_it(small: Path) -> None:
    dataset = load_scienceqa(small)
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == list(SMALL)


def test_every_column_is_populated(items: list[Item]) -> None:
    count: Counter[str] = Counter()
    for item in items:
        if item.split == "test":
            raw = record(item)
            count[raw["subject"]] += 1
            count["TXT"] += bool(raw["hint"])
            count["IMG"] += raw["image"] is not None
            count["NO"] += not raw["hint"] and raw["image"] is None
            count["TXT and IMG"] += bool(raw["hint"]) and raw["image"] is not None
            count["G1-6" if item.grade <= 6 else "G7-12"] += 1
    assert len(count) == 9
    assert min(count.values()) >= 60
    assert min(number for name, number in count.items() if name != "TXT and IMG") >= 100


def test_answers_are_balanced_over_positions(items: list[Item]) -> None:
    for options in (3, 4):
        group = [item.draft.answer for item in items if len(item.draft.choices) == options]
        expected = len(group) / options
        chi_square = sum((group.count(i) - expected) ** 2 / expected for i in range(options))
        assert chi_square < 16.3  # 0.1 % quantile for 3 degrees of freedom


def test_scene_and_question_occur_once(items: list[Item]) -> None:
    seen = Counter((item.draft.question, describe(item.draft.scene)) for item in items if item.draft.scene)
    assert max(seen.values()) == 1


def _features(draft: Draft, option: str) -> list[str]:
    words = draft.question.split()
    others = [choice for choice in draft.choices if choice != option]
    return [
        option,
        f"{draft.question}|{option}",
        f"{draft.hint}|{option}",
        f"at {draft.choices.index(option)} of {len(draft.choices)}",
        *(f"{word}|{option}" for word in words),
        *(f"{other}|{option}" for other in others),
    ]


def test_text_alone_stays_at_chance_on_picture_questions(items: list[Item]) -> None:
    """Naive Bayes on (question, hint, options), learned on train, cannot beat chance on test."""
    log_odds, seen = _learn_odds([item.draft for item in items if item.split == "train" and item.draft.scene])
    test = [item.draft for item in items if item.split == "test" and item.draft.scene]
    right = 0
    for draft in test:
        scores = [sum(log_odds.get(f, 0.0) for f in _features(draft, option)) for option in draft.choices]
        right += scores.index(max(scores)) == draft.answer
    chances = [1 / len(draft.choices) for draft in test]
    deviation = sum(p * (1 - p) for p in chances) ** 0.5
    assert seen > 1000
    assert abs(right - sum(chances)) < 3.3 * deviation


def _learn_odds(drafts: list[Draft]) -> tuple[dict[str, float], int]:
    from math import log

    right: Counter[str] = Counter()
    chance: defaultdict[str, float] = defaultdict(float)
    for draft in drafts:
        for i, option in enumerate(draft.choices):
            for feature in _features(draft, option):
                right[feature] += i == draft.answer
                chance[feature] += 1 / len(draft.choices)
    return {f: log((right[f] + 1) / (expected + 1)) for f, expected in chance.items()}, len(drafts)
