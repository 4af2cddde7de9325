"""The training documents of the tiny language model."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from harness.pretrain.documents import STAGES, document


@given(st.integers(0, 2**32))
def test_a_scene_in_an_overlay_is_not_in_the_text(seed: int) -> None:
    drawn = document(Random(seed), len(STAGES) - 1)
    if drawn.overlay:
        assert "outline," not in drawn.text and " objects on " not in drawn.text
