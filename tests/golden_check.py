"""Compare this project's methods with figures of the published code: `python -m tests.golden_check FOLDER`.

The command finds the known sets of a folder by name, builds each model from the sizes in its set, and prints one line
per set, such as `memvp logits 3e-06 grads 2e-05 ok`. It exits with status 1 if a set is out of tolerance, and with 2 if
the folder contains no known set. `tests/golden/README.md` describes the sets.
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
"""Name of a set -> the module whose `check(GoldenSet)` compares it."""


def sets_in(folder: Path) -> list[str]:
    """Return the names of the known sets of which `folder` contains both files."""
    return [name for name in CHECKS if all((folder / f"{name}.{end}").is_file() for end in ("json", "safetensors"))]


def check_set(folder: Path, name: str) -> Comparison:
    """Run the check of the set `name` in `folder`."""
    return importlib.import_module(CHECKS[name]).check(GoldenSet.read(folder, name))


def line(name: str, result: Comparison) -> str:
    """Return the line that is printed for a set: its largest differences and the verdict."""
    verdict = f"MISS: {', '.join(result.failures)}" if result.failures else "ok"
    return f"{name} logits {result.logits:.0e} grads {result.gradients:.0e} {verdict}"


def main(arguments: list[str] | None = None) -> int:
    """Check every known set of a folder and return the exit status.

    Args:
        arguments: of the command line; None takes those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.golden_check", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder that contains NAME.safetensors and NAME.json")
    folder = parser.parse_args(arguments).folder
    names = sets_in(folder)
    if not names:
        print(f"{folder}: no known golden set; give a folder that contains one of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    missed = False
    for name in names:
        result = check_set(folder, name)
        missed |= bool(result.failures)
        print(line(name, result), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
