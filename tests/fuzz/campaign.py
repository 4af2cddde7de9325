"""Try changed inputs, each in a process of its own, and count what became of them."""

import gc
import io
import os
import random
import resource
import select
import shutil
import signal
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import psutil

from tests.fuzz.kind import Kind
from tests.fuzz.kinds import KINDS
from tests.fuzz.models import SOURCES

SLOW_S = 5.0
LARGE_BYTES = 10**9
_KILL_S = 60
_WAIT_S = 30.0
"""Nobody waits that long for the processor, even on a busy machine."""
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
        seconds: how long it computed, which a busy machine does not change much.
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
        return Case(seed, what, *_in_child(kind, folder))
    finally:
        shutil.rmtree(folder)


def _in_child(kind: Kind, folder: Path) -> tuple[Outcome, str, float, int]:
    """Use a folder in a forked process; return what became of it, as `Case` does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _use(kind, folder, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        waits = _waits_for_ever(child, pipe)
        if waits:
            os.kill(child, signal.SIGKILL)
        said = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    outcome, before, detail = [*said.split("\n", 2), "", "", ""][:3]
    if outcome not in ("passed", "refused", "uncaught"):
        ended = f"the process ended with status {os.waitstatus_to_exitcode(status)}"
        outcome, detail = "uncaught", "the process waited and computed nothing" if waits else ended
    extra_bytes = (usage.ru_maxrss - int(before or usage.ru_maxrss)) * 1024
    return outcome, detail, usage.ru_utime + usage.ru_stime, extra_bytes  # type: ignore[return-value]


def _waits_for_ever(child: int, pipe: IO[bytes]) -> bool:
    """Wait until a process has said what became of its input, and return whether it computes nothing instead."""
    process, before = psutil.Process(child), -1.0
    while not select.select([pipe], [], [], _WAIT_S)[0]:
        times = process.cpu_times()
        if times.user + times.system == before:
            return True
        before = times.user + times.system
    return False


def _use(kind: Kind, folder: Path, writer: int) -> None:
    """Use a folder in this process, say what became of it, and end the process."""
    from harness.errors import UserError
    from harness.escape import message

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CPU, (_KILL_S, _KILL_S))
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
    os.write(writer, f"{outcome}\n{before}\n{detail[-3_000:]}".encode(errors="replace")[:4_000])
    os._exit(0)


def _other(error: BaseException, is_command: bool) -> tuple[Outcome, str]:
    """Return what became of an input that raised something else than a `UserError`."""
    # The command line prints both in one line: wrong use of an option, and what the operating system refuses.
    if is_command and (type(error).__module__.startswith(("typer", "click")) or isinstance(error, OSError)):
        return "refused", str(error)
    if isinstance(error, SystemExit):
        return ("refused" if error.code else "passed"), ""
    return "uncaught", traceback.format_exc()
