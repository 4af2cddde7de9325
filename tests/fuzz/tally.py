"""What became of blocks of inputs, kept in a file, so that a campaign can be interrupted and go on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Self

from tabulate import tabulate

from harness.errors import UserError
from harness.files import read_file, sha256_of_files, write_atomic
from harness.records import collect_git
from tests.fuzz.campaign import LARGE_BYTES, SLOW_S, Case

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("harness", "methods", "tests/fuzz")
_SHOWN = 5


@dataclass(frozen=True)
class Block:
    """Counts of a block of inputs of one kind, whose seeds follow each other.

    Attributes:
        kind: the kind.
        first: the first seed.
        tried, refused, passed, uncaught, slow, large: numbers of inputs.
        seconds: how long all of them computed.
        bad: the first bad cases, each as one text.
        commit: the commit of the checkout.
        code: hash of the code that was tried.
    """

    kind: str
    first: int
    tried: int
    refused: int
    passed: int
    uncaught: int
    slow: int
    large: int
    seconds: float
    bad: list[str]
    commit: str | None
    code: str

    @classmethod
    def of(cls, kind: str, cases: Sequence[Case]) -> Self:
        """Count cases that were just tried."""
        refused, passed, uncaught = (
            sum(case.outcome == outcome for case in cases) for outcome in ("refused", "passed", "uncaught")
        )
        return cls(
            kind=kind,
            first=cases[0].seed,
            tried=len(cases),
            refused=refused,
            passed=passed,
            uncaught=uncaught,
            slow=sum(case.seconds > SLOW_S for case in cases),
            large=sum(case.extra_bytes > LARGE_BYTES for case in cases),
            seconds=sum(case.seconds for case in cases),
            bad=[_told(case) for case in cases if case.is_bad][:_SHOWN],
            commit=collect_git().commit,
            code=code_hash(),
        )


class State:
    """The blocks of a campaign, in a file with one of them on each line.

    Args:
        path: the file, which need not exist; None keeps the blocks in memory.

    Raises:
        UserError: the file is something else, or its blocks are of other code.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        try:
            lines = read_file(path).splitlines() if path is not None and path.exists() else []
            self.blocks = [Block(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: is not a file of this campaign; give another file") from error
        for block in self.blocks:
            if block.code != code_hash():
                raise UserError(f"{path}: is of other code (commit {block.commit}); give another file")

    def next_seed(self, kind: str) -> int:
        """Return the seed after the last of a kind that was tried."""
        return max((block.first + block.tried for block in self.blocks if block.kind == kind), default=0)

    def add(self, block: Block) -> None:
        """Add a block and write the file."""
        self.blocks.append(block)
        if self._path is not None:
            write_atomic(self._path, "".join(json.dumps(asdict(block)) + "\n" for block in self.blocks))


def table(blocks: Iterable[Block]) -> str:
    """Return the counts of each kind as a table in Markdown; `ms each` is how long an input computed on average."""
    import pandas  # a process that was forked before has less to copy

    slow, columns = f"slower than {SLOW_S:.0f} s", ["tried", "refused", "passed", "uncaught", "slow", "large"]
    heads = ["kind", "tried", "refused in one line", "passed", "uncaught", slow, "more than 1 GB", "ms each"]
    counts = pandas.DataFrame(map(asdict, blocks)).groupby("kind", sort=False)[[*columns, "seconds"]].sum()
    counts["seconds"] = (1000 * counts["seconds"] / counts["tried"]).round().astype(int)
    return str(tabulate(counts.reset_index().to_numpy().tolist(), heads, tablefmt="github"))


@cache
def code_hash() -> str:
    """Return a hash of the project's code and of this campaign's."""
    files = [path for folder in _CODE for path in (_ROOT / folder).rglob("*") if path.is_file()]
    own = [path for path in files if path.parent.name != "__pycache__"]
    code = {str(path.relative_to(_ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}
    return sha256_of_files(code)


def _told(case: Case) -> str:
    how = f"{case.outcome}, {case.seconds:.1f} s, {case.extra_bytes / 1e6:.0f} MB"
    return f"seed {case.seed}: {case.what!r}: {how}\n{case.detail[-400:]}"
