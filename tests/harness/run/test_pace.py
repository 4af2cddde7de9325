"""Estimates of how long a run and a sweep still take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.run.pace import WINDOW_S, RunPace, SweepPace


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def go(
    pace: RunPace,
    clock: Clock,
    phase: str,
    steps: int,
    seconds: float,
    first: int = 1,
    last: int = 0,
    every: int = 0,
    validation_s: float = 0.0,
) -> None:
    """Do the steps from `first` to `last` of a phase, all in the same time, with a validation `every` so many steps.

    The last step is reported, but a validation that it may ask for is not made.
    """
    pace.start(phase, steps, every)
    end = last or steps
    for done in range(first, end + 1):
        clock.now += seconds
        pace.advance(done)
        if every and done % every == 0 and done < end:
            clock.now += validation_s
            pace.validated(validation_s)


@given(
    steps=st.integers(3, 300),
    per_step=st.integers(1, 64),
    seconds=st.floats(0.01, 100),
    evaluated=st.integers(0, 5000),
    share=st.floats(0.1, 0.9),
)
def test_a_steady_run_is_estimated_exactly(
    steps: int, per_step: int, seconds: float, evaluated: int, share: float
) -> None:
    clock = Clock()
    pace = RunPace({"evaluating": 0.5}, clock)
    pace.plan({"training": steps * per_step, "evaluating": evaluated})
    last = max(2, int(share * steps))
    go(pace, clock, "training", steps, seconds, last=last)
    assert pace.samples_per_s == pytest.approx(per_step / seconds)
    assert pace.left_s == pytest.approx((steps - last) * seconds + 0.5 * evaluated)


def test_nothing_is_claimed_before_the_second_step() -> None:
    clock = Clock()
    pace = RunPace({}, clock)
    pace.plan({"training": 100})
    go(pace, clock, "training", 10, 1.0, last=1)
    assert pace.samples_per_s is None and pace.left_s is None


def test_steps_made_by_an_earlier_process_do_not_count() -> None:
    clock = Clock()
    pace = RunPace({}, clock)
    pace.plan({"training": 1000})
    go(pace, clock, "training", 1000, 2.0, first=501, last=510)
    assert pace.samples_per_s == pytest.approx(0.5)
    assert pace.left_s == pytest.approx(490 * 2.0)


def test_the_rate_follows_the_last_minute() -> None:
    clock = Clock()
    pace = RunPace({}, clock)
    pace.plan({"training": 1000})
    go(pace, clock, "training", 1000, 10.0, last=50)
    for done in range(51, 251):
        clock.now += 1.0
        pace.advance(done)
    assert 2 * WINDOW_S < 200 and pace.samples_per_s == pytest.approx(1.0)


def test_a_sweep_is_its_present_run_and_those_that_follow() -> None:
    clock = Clock()
    sweep = SweepPace(pending=4)
    sweep.skip()
    first = sweep.begin(clock)
    first.plan({"training": 100, "evaluating": 50})
    go(first, clock, "training", 100, 2.0)
    go(first, clock, "evaluating", 50, 1.0)
    assert first.left_s == 0
    assert sweep.left_s([first]) == pytest.approx(2 * 250)
    sweep.end(first)

    second = sweep.begin(clock)
    second.plan({"training": 100, "evaluating": 50})
    go(second, clock, "training", 100, 3.0, last=60)
    assert second.left_s == pytest.approx(40 * 3 + 50 * 1)
    assert sweep.left_s([second]) == pytest.approx(170 + 350)


@given(
    steps=st.integers(4, 300),
    every=st.integers(1, 100),
    validation_s=st.floats(0.1, 1000),
    share=st.floats(0.1, 1.0),
)
def test_validations_that_are_left_count_once_one_was_made(
    steps: int, every: int, validation_s: float, share: float
) -> None:
    clock = Clock()
    sweep = SweepPace(pending=2)
    first = sweep.begin(clock)
    first.plan({"training": 4 * steps})
    last = max(2, int(share * steps))
    go(first, clock, "training", steps, 2.0, last=last, every=every, validation_s=validation_s)
    assert first.samples_per_s == pytest.approx(4 / 2.0)  # the steps are as fast as without validations
    made, all_of_them = (last - 1) // every, steps // every
    one = validation_s if made else 0.0
    rest = 2.0 * (steps - last) + one * (all_of_them - made)
    assert first.left_s == pytest.approx(rest)
    assert sweep.left_s([first]) == pytest.approx(rest + 2.0 * steps + one * all_of_them)
    sweep.end(first)

    # The next run knows from the first one how long a validation takes.
    second = sweep.begin(clock)
    second.plan({"training": 4 * steps})
    go(second, clock, "training", steps, 3.0, last=2, every=steps)
    assert second.left_s == pytest.approx(3.0 * (steps - 2) + one)


def test_runs_side_by_side_share_what_is_pending() -> None:
    clock = Clock()
    sweep = SweepPace(pending=6)
    running = [sweep.begin(clock), sweep.begin(clock)]
    for pace in running:
        pace.plan({"training": 10})
        go(pace, clock, "training", 10, 1.0, last=5)
    assert sweep.left_s(running, side_by_side=2) == pytest.approx((2 * 5 + 4 * 10) / 2)
    sweep.pending = 0
    assert sweep.left_s(running[:1], side_by_side=2) == pytest.approx(5)
