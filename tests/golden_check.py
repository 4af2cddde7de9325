"""Compare this project's methods with figures of the published code: `python -m tests.golden_check FOLDER`.

Finds the known sets in the folder by name, builds each from its own sizes, prints one line a set
(`memvp logits 3e-06 grads 2e-05 ok`) and exits 1 when one is out of tolerance, 2 when the folder holds no known set.
"""

import argparse
import importlib
import sys
from pathlib import Path

from tests.golden.published import Comparison, GoldenSet

CHECKS = {
    "memvp": "tests.golden.memvp",
    "lavin": "tests.golden.lavin",
    "llama_adapter": "tests.golden.llama_adapter",
    "llama_adapter_v1text": "tests.golden.llama_adapter",
}
"""Name of a set -> module whose `check(GoldenSet)` compares it."""


def sets_in(folder: Path) -> list[str]:
    """The known sets that `folder` holds, both files of each."""
    return [name for name in CHECKS if all((folder / f"{name}.{end}").is_file() for end in ("json", "safetensors"))]


def check_set(folder: Path, name: str) -> Comparison:
    """Run one set's check."""
    return importlib.import_module(CHECKS[name]).check(GoldenSet.read(folder, name))


def line(name: str, result: Comparison) -> str:
    """One line for one set."""
    verdict = f"MISS: {', '.join(result.failures)}" if result.failures else "ok"
    return f"{name} logits {result.logits:.0e} grads {result.gradients:.0e} {verdict}"


def main(arguments: list[str] | None = None) -> int:
    """Check every known set of a folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden_check", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with NAME.safetensors and NAME.json")
    folder = parser.parse_args(arguments).folder
    names = sets_in(folder)
    if not names:
        print(f"{folder}: no known golden set; known: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    missed = False
    for name in names:
        result = check_set(folder, name)
        missed |= bool(result.failures)
        print(line(name, result), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
