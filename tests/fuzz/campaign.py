"""Try changed inputs, each in a process of its own, and count what became of them."""

import gc
import io
import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from tests.fuzz.kind import Kind
from tests.fuzz.kinds import KINDS
from tests.fuzz.models import SOURCES

SLOW_S = 5.0
LARGE_BYTES = 10**9
_KILL_S = 60.0
_LINE = 2_100

Outcome = Literal["passed", "refused", "uncaught"]


@dataclass(frozen=True)
class Case:
    """One input that was tried.

    Attributes:
        seed: with it, the same input is made again.
        what: which file was changed, or which arguments were tried.
        outcome: `refused` is an error for the user in one line.
        detail: the message, or the end of the traceback.
        seconds: how long it took.
        extra_bytes: by how much the resident memory grew at most.
    """

    seed: int
    what: str
    outcome: Outcome
    detail: str
    seconds: float
    extra_bytes: int

    @property
    def is_bad(self) -> bool:
        """Whether nobody should meet this."""
        return self.outcome == "uncaught" or self.seconds > SLOW_S or self.extra_bytes > LARGE_BYTES


def prepare(name: str, folder: Path) -> Path:
    """Return a folder with a valid example of a kind, after trying it once; it is made once for kinds that share it."""
    kind = KINDS[name]
    key = kind.make.__name__.removeprefix("make_")
    if key not in SOURCES:
        source = folder / key
        source.mkdir(parents=True)
        kind.make(source)
        SOURCES[key] = source
    if name != "options":
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            kind.use(SOURCES[key])
    gc.freeze()  # so that a child does not copy what its garbage collector only looks at
    return SOURCES[key]


def attempt(name: str, source: Path, scratch: Path, seed: int) -> Case:
    """Try one changed input.

    Args:
        name: the kind.
        source: what `prepare` returned.
        scratch: an empty folder.
        seed: where the changes come from.
    """
    kind, chance = KINDS[name], random.Random(f"{name} {seed}")
    folder = Path(shutil.copytree(source, scratch / "changed"))
    try:
        what = kind.change(folder, chance)
        begun = time.monotonic()
        outcome, detail, extra = _in_child(kind, folder)
        return Case(seed, what, outcome, detail, time.monotonic() - begun, extra)
    finally:
        shutil.rmtree(folder)


def _in_child(kind: Kind, folder: Path) -> tuple[Outcome, str, int]:
    """Use a folder in a forked process; return what became of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _use(kind, folder, writer)
    os.close(writer)
    said = b""
    with os.fdopen(reader, "rb") as pipe:
        if select.select([pipe], [], [], _KILL_S)[0]:
            said = pipe.read()
        else:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    outcome, _, rest = said.decode(errors="replace").partition("\n")
    extra, _, detail = rest.partition("\n")
    if outcome in ("passed", "refused"):
        return outcome, detail, int(extra)  # type: ignore[return-value]
    return "uncaught", detail or f"the process ended with status {status}", int(extra or 0)


def _use(kind: Kind, folder: Path, writer: int) -> None:
    """Use a folder in this process, say what became of it, and end the process."""
    from harness.errors import UserError
    from harness.escape import message

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        kind.use(folder)
        outcome, detail = "passed", ""
    except UserError as error:
        outcome, detail = "refused", message(str(error))  # as the command line prints it
        if not detail.strip() or len(detail) > _LINE or not detail.isprintable():
            outcome = "uncaught"
    except BaseException as error:
        outcome, detail = _other(error, is_command=kind.change is KINDS["options"].change)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    os.write(writer, f"{outcome}\n{extra}\n{detail[-3_000:]}".encode(errors="replace")[:4_000])
    os._exit(0)


def _other(error: BaseException, is_command: bool) -> tuple[Outcome, str]:
    """Return what became of an input that raised something else than a `UserError`."""
    # The command line prints both in one line: wrong use of an option, and what the operating system refuses.
    if is_command and (type(error).__module__.startswith(("typer", "click")) or isinstance(error, OSError)):
        return "refused", str(error)
    if isinstance(error, SystemExit):
        return ("refused" if error.code else "passed"), ""
    return "uncaught", traceback.format_exc()


def table(cases: dict[str, list[Case]]) -> str:
    """Return the counts of each kind as a table in Markdown."""
    heads = (
        "kind",
        "tried",
        "refused in one line",
        "passed",
        "uncaught",
        f"slower than {SLOW_S:.0f} s",
        "more than 1 GB",
    )
    return str(tabulate([_counts(name, found) for name, found in cases.items()], heads, tablefmt="github"))


def _counts(name: str, cases: Iterable[Case]) -> tuple[object, ...]:
    found = list(cases)
    by_outcome = [sum(case.outcome == outcome for case in found) for outcome in ("refused", "passed", "uncaught")]
    slow = sum(case.seconds > SLOW_S for case in found)
    return (name, len(found), *by_outcome, slow, sum(case.extra_bytes > LARGE_BYTES for case in found))
