"""Numbers as people read them: sizes in a unit that fits, and differences with their sign."""


def readable_size(size: float) -> str:
    """Return a number of bytes as text, in the units of a download page: B, kB, MB or GB."""
    return _in_units(size, 1000, ("B", "kB", "MB", "GB"))


def readable_memory(size: float) -> str:
    """Return a number of bytes as text, in the units of memory: B, KiB, MiB or GiB."""
    return _in_units(size, 1024, ("B", "KiB", "MiB", "GiB"))


def signed(value: float, digits: int = 2) -> str:
    """Return a difference as text with its sign, which is a plus where the rounded number is zero.

    Args:
        value: the difference.
        digits: decimal places.
    """
    return f"{value:+z.{digits}f}"


def _in_units(size: float, base: int, units: tuple[str, ...]) -> str:
    """Return a size in the largest unit of which there is at least one; the first two units have no decimals."""
    power = max((power for power in range(len(units)) if size >= base**power), default=0)
    return f"{size / base**power:,.{1 if power > 1 else 0}f} {units[power]}"
