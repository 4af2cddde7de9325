"""Holm's correction: against a hand-computed example, its properties, and how often chance gets through."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.stats import holm

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def test_by_hand() -> None:
    # Sorted: 0.01 · 4, 0.02 · 3, 0.03 · 2, and 0.04 · 1, which may not fall below the 0.06 before it.
    assert np.allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([]) == [] and holm([0.3]) == [0.3]


@given(P_VALUES)
def test_nothing_becomes_smaller_and_the_order_stays(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= raised <= 1 for p, raised in zip(p_values, corrected, strict=True))
    assert max(corrected, default=0) <= max([len(p_values) * p for p in p_values], default=0) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)


@given(P_VALUES, st.data())
def test_a_larger_p_value_makes_none_smaller(p_values: list[float], data: st.DataObject) -> None:
    larger = [data.draw(st.floats(p, 1)) for p in p_values]
    assert all(before <= after + 1e-12 for before, after in zip(holm(p_values), holm(larger), strict=True))


def test_chance_gets_through_in_one_family_of_twenty() -> None:
    draws = np.random.default_rng(0).random((2000, 9))
    through = np.mean([min(holm(list(row))) < 0.05 for row in draws])
    assert 0.035 < through < 0.06
