"""Which rows of a table are the best of a column, and which ones are not distinguishable from the best.

All pairs of rows are tested in each column, and the p-values of a column are corrected for the number of pairs. So it
does not matter that the best row was found by looking: with a probability of 95 %, no row of a column is called worse
that is not.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from harness.report.differences import by_seed, difference
from harness.report.rows import Board, Rank, TableRow
from harness.stats import CONFIDENCE, Difference, Over, holm

Place = int
"""Position of a row in its board."""
_LEVEL = 1 - CONFIDENCE
_LEGEND = (
    "best: better than every other method of its column. a: not distinguishable from the best value of its column. "
    "Reference rows are not ranked. All pairs of methods are tested in each column, corrected by Holm's method at 5 %."
)


def ranked(board: Board, results_dir: Path) -> Board:
    """Return a board whose cells say how they rank, with notes on how this was tested.

    Methods are ranked among the rows of one model, in columns of scores. The table's reference rows, such as the
    oracle, are not ranked, and neither is a table of costs.

    Args:
        board: the board.
        results_dir: the results folder, for the predictions.

    Raises:
        UserError: saved predictions have an error.
    """
    if board.layout.setting != "data":
        return board
    ranks: dict[tuple[Place, str], Rank] = {}
    tested: dict[str, set[Over]] = defaultdict(set)
    for places in _rankings(board):
        for column in board.layout.columns:
            known = [place for place in places if board.rows[place].metrics[column.key].value is not None]
            pairs = _pairs(board, known, column.key, results_dir)
            tested[column.key] |= {one.over for one in pairs.values()}
            values = {place: board.rows[place].metrics[column.key].value or 0.0 for place in known}
            ranks |= {(place, column.key): rank for place, rank in _ranks(values, pairs).items()}
    rows = tuple(_with_ranks(row, place, ranks) for place, row in enumerate(board.rows))
    return replace(board, rows=rows, notes=(*board.notes, *_notes(board, ranks, tested)))


def _rankings(board: Board) -> list[list[Place]]:
    """Return the rows that are ranked together: those of one model that have runs, without the reference rows."""
    scale = {(row.method, row.variant) for row in board.layout.scale}
    together: dict[str | None, list[Place]] = defaultdict(list)
    for place, row in enumerate(board.rows):
        if row.runs and (row.method, row.variant) not in scale:
            together[row.model].append(place)
    return list(together.values())


def _pairs(
    board: Board, places: Sequence[Place], column: str, results_dir: Path
) -> dict[tuple[Place, Place], Difference]:
    """Return the differences of all pairs of rows that can be tested.

    A single seed compares two trained models, not two methods, so it tests nothing here.
    """
    runs = {place: by_seed(board.rows[place].runs) for place in places}
    found = {}
    for one, other in combinations(places, 2):
        if len(runs[one].keys() & runs[other].keys()) > 1:
            pair = difference(runs[one], runs[other], column, results_dir)
            if pair is not None and pair.p_value is not None:
                found[one, other] = pair
    return found


def _ranks(values: Mapping[Place, float], pairs: Mapping[tuple[Place, Place], Difference]) -> dict[Place, Rank]:
    """Return how the rows of one column rank; empty where no pair could be tested.

    Args:
        values: row -> its mean.
        pairs: two rows -> their difference.
    """
    if not pairs:
        return {}
    raised = holm([one.p_value for one in pairs.values() if one.p_value is not None])
    corrected = dict(zip(pairs, raised, strict=True))
    top = max(values, key=lambda place: values[place])
    ranks: dict[Place, Rank] = {}
    for place in values.keys() - {top}:
        p_value = corrected.get((min(top, place), max(top, place)))
        ranks[place] = "untested" if p_value is None else "lower" if p_value < _LEVEL else "tied"
    return ranks | {top: "best" if set(ranks.values()) == {"lower"} else "tied"}


def _with_ranks(row: TableRow, place: Place, ranks: Mapping[tuple[Place, str], Rank]) -> TableRow:
    cells = {key: replace(cell, rank=ranks.get((place, key))) for key, cell in row.metrics.items()}
    return replace(row, metrics=cells)


def _notes(board: Board, ranks: Mapping[tuple[Place, str], Rank], tested: Mapping[str, set[Over]]) -> Iterator[str]:
    """Yield how the ranks were found, and which rows and columns could not be tested."""
    if not any(len(places) > 1 for places in _rankings(board)):
        return
    if not ranks:
        yield "No value is called best: a test needs two methods that have at least two seeds in common."
        return
    yield _LEGEND
    titles = {column.key: column.title for column in board.layout.columns}
    for over in ("seeds and problems", "seeds"):
        names = [titles[key] for key in titles if over in tested[key]]
        why = "" if over == "seeds and problems" else ", because the saved predictions do not tell single answers there"
        if names:
            yield f"Tested over {over}{why}: {', '.join(names)}."
    if names := [title for key, title in titles.items() if not tested[key]]:
        yield f"Not tested, because seeds or values are missing: {', '.join(names)}."
    if "untested" in ranks.values():
        yield "?: not tested against the best value, because two seeds in common, or any variation, are missing."
