"""An interactive figure of the page, as plain data for plotly.js, with a table of the same numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Colours of Okabe and Ito, which people with any colour blindness can tell apart; shapes and dashes say the same. Their
# orange and sky blue are too light for a line on white. The brown and the blue instead are as far from all others.
GREY = "#8C8C8C"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8F5D2B", "#2693FF", GREY)
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "pentagon", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class PageFigure:
    """One figure.

    Attributes:
        name: its id in the page.
        title: its title.
        caption: what it shows, in sentences.
        data: plotly's traces.
        layout: plotly's layout.
        heads, rows: the same numbers as a table.
    """

    name: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the look of each name. The same names in the same order have the same looks in every figure."""
    return {name: style(index) for index, name in enumerate(dict.fromkeys(names))}


def style(index: int) -> dict[str, Any]:
    """Return colour, marker and dash of the series with this index; no two of the first 42 look the same."""
    return {
        "marker": {"color": _COLOURS[index % 7], "symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 10},
        "line": {"color": _COLOURS[index % 7], "dash": _DASHES[index % len(_DASHES)]},
    }
