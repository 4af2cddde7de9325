"""The verdict on two methods in plain sentences, and what each statistical model takes into account."""

from collections.abc import Mapping

from harness.numbers import signed
from harness.stats import CONFIDENCE, Difference, Over

UNANSWERED = "saved predictions are missing or the column has a single problem"
"""Why accuracies of several seeds are not tested: the single answers that tell it are not there."""
MODELS: Mapping[Over, str] = {
    "seeds and problems": "mixed model of the paired answers, in which seeds and problems are both random (mean "
    "squares of the two-way table, degrees of freedom of Hillis 2007). It speaks of other seeds and of other problems "
    "of this kind.",
    "seeds": "paired t-test over the seeds, because there are no answers of single problems to compare. It speaks of "
    "other seeds on the same problems.",
    "problems": "exact McNemar test over the problems of one seed. It speaks of these two trained models only: how "
    "much seeds vary is not known.",
    "nothing": f"not tested, because {UNANSWERED}. The seeds alone would not tell how much depends on the problems.",
}
"""Model of a difference -> what it is and what its result holds for."""
_LEVEL = 1 - CONFIDENCE


def verdict(
    a: str, b: str, summary: str, differences: Mapping[str, Difference], corrected: Mapping[str, float | None]
) -> str:
    """Return whether one method is better, in plain sentences.

    Args:
        a, b: names of the methods.
        summary: the column on which the verdict is made.
        differences: column -> the first method minus the second.
        corrected: column -> p-value, corrected over the columns.
    """
    if summary not in differences:
        return f"{a} and {b} cannot be compared: not every run has a value in {summary}."
    sentences = [_summary(a, b, summary, differences[summary]), *_others(summary, differences, corrected)]
    return " ".join(sentences)


def _summary(a: str, b: str, summary: str, one: Difference) -> str:
    size = f"a difference of {signed(one.value)} points ({a} minus {b}"
    if one.p_value is None:
        return f"{a} and {b} cannot be tested against each other on {summary}: {size}), {_why_untested(one)}."
    found = f"{size}{_interval(one)}, p {p_relation(one.p_value)}), over {_over(one)}"
    if one.over == "problems":
        kind = "differ" if one.is_significant else "cannot be told apart"
        return (
            f"One seed does not compare methods. The two trained models of {a} and {b} {kind} on {summary}: {found}."
            f"{_power(one)}"
        )
    if one.is_significant:
        better, worse = (a, b) if one.value > 0 else (b, a)
        return f"{better} is better than {worse} on {summary}: {found}.{_power(one)}"
    return f"{a} and {b} cannot be told apart on {summary}: {found}.{_power(one)}"


def _others(summary: str, differences: Mapping[str, Difference], corrected: Mapping[str, float | None]) -> list[str]:
    """Return a sentence on the other columns; none where there are none to test."""
    tested = {name: p for name, p in corrected.items() if name != summary and p is not None}
    if not tested:
        return []
    found = [f"{name} ({signed(differences[name].value)})" for name, p in tested.items() if p < _LEVEL]
    count = f"the other {len(tested)} columns" if len(tested) > 1 else "the other column"
    if not found:
        return [f"On {count}, no difference is significant after Holm's correction."]
    return [f"On {count}, these differ after Holm's correction: {', '.join(found)}."]


def _interval(one: Difference) -> str:
    return "" if one.low is None or one.high is None else f", 95 % interval {signed(one.low)} to {signed(one.high)}"


def _over(one: Difference) -> str:
    seeds = f"{one.seeds} seed{'s' if one.seeds != 1 else ''}"
    return seeds if one.problems is None else f"{seeds} and {one.problems:,} problems"


def _power(one: Difference) -> str:
    if one.detectable is None:
        return ""
    return f" A true difference of {one.detectable:.2f} points would be found with a probability of 80 %."


def _why_untested(one: Difference) -> str:
    if one.over == "nothing":
        return f"because {UNANSWERED}"
    if one.seeds < 2:
        return "with one seed in common and no right or wrong answers of single problems"
    return f"the same for all {one.seeds} seeds, so there is no variation to test it against"


def p_text(p_value: float | None) -> str:
    """Return a p-value for a table, such as `0.031` or `<0.001`."""
    return "n/a" if p_value is None else "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def p_relation(p_value: float) -> str:
    """Return a p-value for a sentence, such as `= 0.031` or `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
