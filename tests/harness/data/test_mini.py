"""The mini benchmark: same seed same bytes, true answers, and nothing to be learned without looking."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.data.mini.build import Item, build_mini, ensure_mini, record, sample_items
from harness.data.mini.grammar import captions, describe
from harness.data.mini.kinds import KINDS, MODES, Kind
from harness.data.mini.questions import Draft
from harness.data.mini.world import NUMBERS, VOCABULARY, relation, sample_scene
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError

FIELDS = {
    "question", "choices", "answer", "hint", "image", "task", "grade", "subject", "topic", "category", "skill",
    "lecture", "solution", "split",
}  # fmt: skip
SMALL = (40, 10, 20)


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


def test_same_seed_same_bytes(small: Path, tmp_path: Path) -> None:
    build_mini(tmp_path / "again", seed=3, sizes=SMALL)
    build_mini(tmp_path / "other", seed=4, sizes=SMALL)
    assert _digest(tmp_path / "again") == _digest(small)
    assert _digest(tmp_path / "other") != _digest(small)


def test_files_have_the_official_layout(small: Path) -> None:
    problems = json.loads((small / "problems.json").read_text())
    splits = json.loads((small / "pid_splits.json").read_text())
    scenes = json.loads((small / "scenes.json").read_text())
    assert [len(splits[name]) for name in ("train", "val", "test")] == list(SMALL)
    for qid, problem in problems.items():
        assert set(problem) == FIELDS
        assert qid in splits[problem["split"]]
        path = small / "images" / problem["split"] / qid / "image.png"
        assert (problem["image"] is not None) == path.exists() == (qid in scenes)
        if path.exists():
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((64, 64), "RGB")


def test_the_common_loader_reads_it(small: Path) -> None:
    dataset = load_scienceqa(small)
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == list(SMALL)


def test_ensure_builds_once(tmp_path: Path) -> None:
    root = ensure_mini(tmp_path, seed=1, sizes=(4, 2, 2))
    before = (root / "problems.json").stat().st_mtime_ns
    assert ensure_mini(tmp_path, seed=1, sizes=(4, 2, 2)) == root
    assert (root / "problems.json").stat().st_mtime_ns == before
    assert ensure_mini(tmp_path, seed=2, sizes=(4, 2, 2)) != root
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unwritable_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        build_mini(tmp_path / "file" / "in", sizes=(2, 1, 1))


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


def _truth(kind: str, draft: Draft) -> set[str]:
    """The options that are true of the scene, worked out anew."""
    scene = draft.scene
    assert scene is not None
    first = scene.things[0]
    asked = draft.question.lower().replace(",", "").rstrip("?").split()
    named = [thing for thing in scene.things if thing.shape in asked]
    if kind in ("texture", "outline", "colour", "shape", "size", "place"):
        assert len(scene.things) == 1
        return {getattr(first, kind)}
    if kind == "caption":
        return {first.texture, first.colour, first.shape}
    if kind == "count":
        return {NUMBERS[len(scene.things) - 1]}
    if kind == "count texture":
        return {NUMBERS[sum(thing.texture == asked[-1] for thing in scene.things) - 1]}
    if kind == "background":
        return {scene.background}
    if kind.endswith("appears"):
        return {getattr(thing, kind.split()[0]) for thing in scene.things}
    if kind == "colour missing":
        return set(VOCABULARY["colour"]) - {thing.colour for thing in scene.things}
    if kind.endswith(" of"):
        return {getattr(named[0], kind.split()[0])}
    assert kind == "relation"
    first, second = sorted(named, key=lambda thing: asked.index(thing.shape))
    where = relation(first, second)
    assert where is not None
    return {where}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.mode == "image"], ids=lambda kind: kind.name)
def test_exactly_the_answer_is_true(kind: Kind) -> None:
    for seed in range(60):
        draft = kind.make(Random(seed))
        true = _truth(kind.name, draft)
        assert [choice in true for choice in draft.choices] == [i == draft.answer for i in range(len(draft.choices))]
        assert len(set(draft.choices)) == len(draft.choices) >= 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.mode == "text"], ids=lambda kind: kind.name)
def test_the_hint_holds_the_answer(kind: Kind) -> None:
    for seed in range(30):
        draft = kind.make(Random(seed))
        about = draft.question.rstrip("?").split()
        right = draft.choices[draft.answer]
        sentences = [sentence for sentence in draft.hint.split(".") if right in sentence.split()]
        assert len(sentences) == 1
        assert any(word in about for word in sentences[0].split() if word not in ("the", "has", "is"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_descriptions_and_captions_name_what_is_there(seed: int, count: int) -> None:
    rng = Random(seed)
    scene = sample_scene(rng, count)
    words = describe(scene)
    told = captions(scene, rng, 5)
    for thing in scene.things:
        assert f"{thing.size} {thing.texture} {thing.colour} {thing.shape} with {thing.outline} outline" in words
        assert thing.place in words
    absent = set(VOCABULARY["colour"]) - scene.present("colour")
    assert len(set(told)) >= 4
    for text in told:
        assert all(thing.shape in text and thing.colour in text for thing in scene.things)
        assert not absent & set(text.replace(",", " ").replace(".", " ").split())


def test_modes_cover_everything() -> None:
    assert abs(sum(MODES.values()) - 1) < 1e-9
    assert {kind.mode for kind in KINDS} == set(MODES)
