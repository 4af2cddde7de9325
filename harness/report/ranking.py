"""Which value of a column is the best, and which ones are not distinguishable from the best.

Each row is tested against the highest value, and its p-value is multiplied by the number of these tests. So it does not
matter that the highest value was found by looking: whichever row is truly the best, it is called worse with a
probability of at most 5 %, because each of its rivals can beat it by chance with a fair part of that only. All columns
but the one that summarises the task share one such level, as in `compare`, so a table with many columns does not find
more by chance.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.report.differences import by_seed, difference
from harness.report.rows import Board, Rank, TableRow
from harness.report.verdict import UNANSWERED
from harness.stats import CONFIDENCE, Difference, Over
from harness.tasks.facts import task_facts

Place = int
"""Position of a row in its board."""
_LEGEND = (
    "best: better than every other method of its column. a: not distinguishable from the best value of its column. "
    "Every value is tested against the highest one. {summary} is tested by itself, and all other columns together. In "
    "both, the tests are corrected for their number, so that a truly best method is called worse anywhere with a "
    "probability of at most 5 %. Reference rows are not ranked."
)

_FEWER_SEEDS = (
    "A value is the mean over all seeds of its row. A test takes only the seeds that both rows have, with their "
    "predictions, and some rows have other seeds than the best one."
)
_FEW = "fewer than two seeds are in common"
_EVEN = "the difference is the same for all seeds"
_NO_VALUES = "values are missing"
_OWN_PROTOCOLS = "No value is called best: each method has its own protocol here, so the methods are not comparable."


def ranked(board: Board, results_dir: Path) -> Board:
    """Return a board whose cells say how they rank, with notes on how this was tested.

    Methods are ranked among the rows of one model, in columns of scores. The table's reference rows, such as the
    oracle, are not ranked, and neither are tables of costs or of the published protocol, which is another one for each
    method.

    Args:
        board: the board.
        results_dir: the results folder, for the predictions.

    Raises:
        UserError: saved predictions have an error.
    """
    if board.layout.setting != "data":
        return board
    if board.protocol == "published":
        return replace(board, notes=(*board.notes, _OWN_PROTOCOLS))
    ranks: dict[tuple[Place, str], Rank] = {}
    tested: dict[str, set[Over]] = defaultdict(set)
    untested: dict[str, set[str]] = defaultdict(set)
    are_fewer = False
    summary = task_facts(board.layout.task).summary
    for places in _rankings(board):
        columns = {column.key: _known(board, places, column.key) for column in board.layout.columns}
        together = sum(len(known) > 1 for key, known in columns.items() if key != summary)
        for column in board.layout.columns:
            if known := columns[column.key]:
                top = max(known, key=lambda place: known[place])
                tests, reasons = _tests(board, list(known), top, column.key, results_dir)
                untested[column.key] |= reasons
                tested[column.key] |= {one.over for one in tests.values()}
                are_fewer |= any(_has_fewer_seeds(one, board.rows[top], board.rows[p]) for p, one in tests.items())
                level = (1 - CONFIDENCE) / (1 if column.key == summary else max(together, 1))
                ranks |= {(place, column.key): rank for place, rank in _ranks(list(known), top, tests, level).items()}
    rows = tuple(_with_ranks(row, place, ranks) for place, row in enumerate(board.rows))
    fewer = (_FEWER_SEEDS,) if are_fewer else ()
    return replace(board, rows=rows, notes=(*board.notes, *_notes(board, tested, untested), *fewer))


def _known(board: Board, places: Sequence[Place], column: str) -> dict[Place, float]:
    """Return the values of a column, as far as there are any."""
    values = {place: board.rows[place].metrics[column].value for place in places}
    return {place: value for place, value in values.items() if value is not None}


def _has_fewer_seeds(test: Difference, top: TableRow, row: TableRow) -> bool:
    """Return whether a test has fewer seeds than one of the two rows that it compares."""
    return test.seeds < max(len(top.runs), len(row.runs))


def _rankings(board: Board) -> list[list[Place]]:
    """Return the rows that are ranked together: those of one model that have runs, without the reference rows."""
    scale = {(row.method, row.variant) for row in board.layout.scale}
    together: dict[str | None, list[Place]] = defaultdict(list)
    for place, row in enumerate(board.rows):
        if row.runs and (row.method, row.variant) not in scale:
            together[row.model].append(place)
    return list(together.values())


def _tests(
    board: Board, places: Sequence[Place], top: Place, column: str, results_dir: Path
) -> tuple[dict[Place, Difference], set[str]]:
    """Return the differences of the highest value to the others, as far as they can be tested, and why others cannot.

    A single seed compares two trained models, not two methods, so it tests nothing here.
    """
    best = by_seed(board.rows[top].runs)
    found, reasons = {}, set()
    for place in places:
        if place == top:
            continue
        runs = by_seed(board.rows[place].runs)
        one = difference(best, runs, column, results_dir) if len(best.keys() & runs.keys()) > 1 else None
        if one is None:
            reasons.add(_FEW)
        elif one.p_value is None:
            reasons.add(UNANSWERED if one.over == "nothing" else _EVEN)
        else:
            found[place] = one
    return found, reasons


def _ranks(places: Sequence[Place], top: Place, tests: Mapping[Place, Difference], level: float) -> dict[Place, Rank]:
    """Return how the rows of one column rank; empty where nothing could be tested.

    Args:
        places: the rows with a value.
        top: the one with the highest value.
        tests: the difference of the highest value to another, as far as it could be tested.
        level: the probability with which the truly best row may be called worse in this column.
    """
    if not tests:
        return {}
    ranks: dict[Place, Rank] = {}
    for place in places:
        if place != top:
            one = tests.get(place)
            if one is None or one.p_value is None:
                ranks[place] = "untested"
            else:
                # Over the seeds in common, the value that is highest over all seeds may be the lower one.
                is_lower = one.p_value < level / (len(places) - 1) and one.value > 0
                ranks[place] = "lower" if is_lower else "tied"
    return ranks | {top: "best" if set(ranks.values()) == {"lower"} else "tied"}


def _with_ranks(row: TableRow, place: Place, ranks: Mapping[tuple[Place, str], Rank]) -> TableRow:
    cells = {key: replace(cell, rank=ranks.get((place, key))) for key, cell in row.metrics.items()}
    return replace(row, metrics=cells)


def _notes(board: Board, tested: Mapping[str, set[Over]], untested: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield how the ranks were found, and which rows and columns could not be tested, and why.

    Args:
        board: the board.
        tested: column -> over what its differences were tested.
        untested: column -> why some of its differences were not.
    """
    if not any(len(places) > 1 for places in _rankings(board)):
        return
    if not any(tested.values()):
        yield f"No value is called best, because {_joined(untested.values())}."
        return
    titles = {column.key: column.title for column in board.layout.columns}
    yield _LEGEND.format(summary=titles[task_facts(board.layout.task).summary])
    for over in ("seeds and problems", "seeds"):
        names = [titles[key] for key in titles if over in tested[key]]
        why = "" if over == "seeds and problems" else ", because there are no right and wrong answers there"
        if names:
            yield f"Tested over {over}{why}: {', '.join(names)}."
    left: dict[str, list[str]] = defaultdict(list)
    for key, title in titles.items():
        if not tested[key]:
            left[_joined([untested[key]])].append(title)
    for why, names in left.items():
        yield f"Not tested, because {why}: {', '.join(names)}."
    if some := [reasons for key, reasons in untested.items() if reasons and tested[key]]:
        yield f"?: not tested against the best value, because {_joined(some)}."


def _joined(reasons: Iterable[Iterable[str]]) -> str:
    """Return reasons as a part of a sentence."""
    found = {reason for some in reasons for reason in some}
    return ", or ".join(reason for reason in (_FEW, UNANSWERED, _EVEN) if reason in found) or _NO_VALUES
