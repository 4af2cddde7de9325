"""Comparing the ids in two files, and listing ids in an error message."""

from collections.abc import Collection, Iterable, Mapping

_LISTED = 50


def listing(ids: Iterable[str]) -> str:
    """Return ids for an error message: the first fifty by name, and how many more there are."""
    names = list(ids)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def mismatches(expected: Collection[str], given: Mapping[str, object], noun: str, answer: str) -> list[str]:
    """Return what is wrong with the ids of a set of answers: one text per kind of mistake, or an empty list.

    Args:
        expected: ids of the samples that must be answered.
        given: id -> answer.
        noun: what the samples are called, in the plural.
        answer: what an answer is called, in the singular.
    """
    known = set(expected)
    complaints = []
    if missing := [key for key in expected if key not in given]:
        complaints.append(f"{len(missing)} {noun} without a {answer}: {listing(missing)}")
    if unknown := [key for key in given if key not in known]:
        complaints.append(f"{len(unknown)} {answer}s for unknown {noun}: {listing(unknown)}")
    return complaints
