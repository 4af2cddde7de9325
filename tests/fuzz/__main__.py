"""Fuzz by hand: `python -m tests.fuzz --count 50000` tries so many inputs of each kind and prints a table."""

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.streams import print_error
from tests.fuzz.campaign import attempts, prepare
from tests.fuzz.kinds import KINDS
from tests.fuzz.tally import Block, State, table

_BLOCK = 100


def main(arguments: Sequence[str]) -> int:
    """Try inputs of every kind, show the worst of each, and print the table; the status is 1 if any is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first input")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="the kinds to try")
    parser.add_argument("--state", type=Path, help=f"count every {_BLOCK} inputs in this file, and go on after them")
    options = parser.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a forked process would warn
    state = State(options.state)
    seeds = range(options.first, options.first + options.count)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for kind in options.kinds:
            _try(kind, seeds, state, Path(folder))
    print(f"\n{table(state.blocks)}")
    return int(any(block.bad for block in state.blocks))


def _try(kind: str, seeds: range, state: State, folder: Path) -> None:
    """Try the inputs of a kind that were not tried yet, and print its row of the table."""
    if (needed := KINDS[kind].needs) and importlib.util.find_spec(needed) is None:
        print(f"{kind}: not tried, because the package {needed} is not installed", flush=True)
        return
    if left := range(max(seeds.start, state.next_seed(kind)), seeds.stop):
        source, scratch = prepare(kind, folder / "sources"), folder / "scratch"
        scratch.mkdir(exist_ok=True)
        for first in left[::_BLOCK]:
            block = range(first, min(first + _BLOCK, left.stop))
            state.add(Block.of(kind, list(attempts(kind, source, scratch, block))))
    blocks = [block for block in state.blocks if block.kind == kind]
    print(*(f"{kind}, {told}" for block in blocks for told in block.bad), table(blocks), sep="\n", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print_error(str(error))
        sys.exit(2)
