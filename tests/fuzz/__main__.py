"""Fuzz by hand: `python -m tests.fuzz --count 50000` tries so many inputs of each kind and prints a table."""

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Case, attempt, prepare, table
from tests.fuzz.kinds import KINDS

_SHOWN = 5


def main() -> None:
    """Try inputs of every kind, show the worst of each, and print the table. The exit status is 1 if any is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first input")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="the kinds to try")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a forked process would warn
    cases: dict[str, list[Case]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for name in options.kinds:
            if (needed := KINDS[name].needs) and importlib.util.find_spec(needed) is None:
                print(f"{name}: not tried, because the package {needed} is not installed", flush=True)
                continue
            source = prepare(name, Path(folder) / "sources")
            scratch = Path(folder) / "scratch"
            scratch.mkdir(exist_ok=True)
            seeds = range(options.first, options.first + options.count)
            cases[name] = [attempt(name, source, scratch, seed) for seed in seeds]
            for case in [case for case in cases[name] if case.is_bad][:_SHOWN]:
                print(
                    f"{name}, seed {case.seed}: {case.what!r}: {case.outcome}, {case.seconds:.1f} s, "
                    f"{case.extra_bytes / 1e6:.0f} MB\n{case.detail[-400:]}",
                    flush=True,
                )
            print(table({name: cases[name]}), flush=True)
    print(f"\n{table(cases)}")
    raise SystemExit(any(case.is_bad for found in cases.values() for case in found))


if __name__ == "__main__":
    main()
