"""Limits for ratios of times, and whether a measurement meets them."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from harness.cost.flops import Phase
from harness.errors import UserError
from harness.records import Spread

Result = Literal["met", "missed", "undecided"]
_FORM = re.compile(r"(train|inference):([\w-]+)/([\w-]+)=(\d*\.?\d+)")


@dataclass(frozen=True)
class Goal:
    """An upper limit for the time of one contestant divided by that of another.

    Attributes:
        phase: training or inference.
        over: the contestant whose time is divided: a method, METHOD-plain, or the yardstick's name.
        under: the contestant by whose time it is divided.
        limit: the largest ratio that meets the goal.
    """

    phase: Phase
    over: str
    under: str
    limit: float

    def __str__(self) -> str:
        return f"{self.phase}:{self.over}/{self.under}={self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """A goal with the ratio that was measured.

    Attributes:
        goal: the goal.
        ratio: the measured ratio.
    """

    goal: Goal
    ratio: Spread

    @property
    def result(self) -> Result:
        """Whether the ratio meets the goal.

        It is undecided if the confidence interval of the median contains the limit, or if there are too few rounds for
        an interval.
        """
        if self.ratio.ci_low is None or self.ratio.ci_high is None:
            return "undecided"
        if self.ratio.ci_high <= self.goal.limit:
            return "met"
        return "missed" if self.ratio.ci_low > self.goal.limit else "undecided"


def parse_goal(text: str) -> Goal:
    """Read a goal from its form `PHASE:METHOD/METHOD=LIMIT`; see `Goal` for the names.

    Raises:
        UserError: the text does not have this form.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(f"--goal {text}: give PHASE:METHOD/METHOD=LIMIT, where the phase is train or inference")
    return Goal(cast("Phase", found[1]), found[2], found[3], float(found[4]))
