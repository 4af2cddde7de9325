"""Numbers as text are about right, and never nothing where there is something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.numbers import readable_memory, readable_size, signed


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (200, "200 B"), (1500, "2 kB"), (626_000_000, "626.0 MB"), (13_480_000_000, "13.5 GB")],
)
def test_sizes(size: int, text: str) -> None:
    assert readable_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0.4 * 2**20, "410 KiB"), (3 * 2**20, "3.0 MiB"), (2**30, "1.0 GiB"), (2**42, "4,096.0 GiB")]
)
def test_memory(size: float, text: str) -> None:
    assert readable_memory(size) == text


@given(st.integers(1, 2**60))
def test_a_size_is_about_right_and_never_nothing(size: int) -> None:
    units = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    for text in (readable_size(size), readable_memory(size)):
        number, unit = text.replace(",", "").split()
        assert float(number) * units[unit] == pytest.approx(size, rel=0.5)
        assert float(number) >= 1


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.004, 2, "+0.00"), (0.0, 1, "+0.0"), (-0.006, 2, "-0.01"), (1.26, 1, "+1.3"), (-0.4, 0, "+0")],
)
def test_a_difference_of_nothing_is_not_negative(value: float, digits: int, text: str) -> None:
    assert signed(value, digits) == text
