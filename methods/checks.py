"""Checks of a config against its backbone that several methods share."""


def check_divisible(what: str, count: int, parts: int, field: str) -> None:
    """Check that a number of layers or blocks divides into equal parts.

    Args:
        what: what is counted, for the message, such as "the vision tower's blocks".
        count: how many there are.
        parts: the number of equal parts, at least 1.
        field: the config field that holds `parts`.

    Raises:
        ValueError: `count` is not a multiple of `parts`; the message lists the values that `field` can take.
    """
    if count % parts:
        divisors = [divisor for divisor in range(1, count + 1) if count % divisor == 0]
        raise ValueError(f"{what} ({count}) do not divide into {parts} equal groups; choose {field} among {divisors}")
