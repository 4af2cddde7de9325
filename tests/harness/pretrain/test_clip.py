"""Training of the tiny CLIP."""

from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from harness.data.mini.grammar import describe
from harness.data.mini.world import ATTRIBUTES, DISTINCT
from harness.pretrain.clip import FAMILY, family, train_clip

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_scenes_of_a_family_all_differ(seed: int) -> None:
    scenes = family(Random(seed))
    assert len(scenes) == FAMILY
    assert len({describe(scene) for scene in scenes}) == FAMILY


@given(seeds)
def test_a_family_differs_in_one_attribute_of_one_thing(seed: int) -> None:
    first, *others = family(Random(seed))
    for other in others:
        pairs = zip(first.things, other.things, strict=True)
        changed = [(a, b, name) for a, b in pairs for name in ATTRIBUTES if getattr(a, name) != getattr(b, name)]
        assert len(changed) == 1
        assert other.background == first.background


@given(seeds)
def test_the_things_of_a_scene_in_a_family_can_be_told_apart(seed: int) -> None:
    for scene in family(Random(seed))[1:]:
        for name in DISTINCT:
            assert len(scene.present(name)) == len(scene.things)


def test_training_is_deterministic(tokenizer, tmp_path: Path) -> None:
    for name in ("once", "again"):
        train_clip(tmp_path / name, tokenizer, 3, 1, lambda step, line: None)
    file = "open_clip_model.safetensors"
    assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
