"""Try changed inputs, in a process that nothing an input does can outlive, and say what became of each."""

import gc
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, NoReturn

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
_MUCH_BYTES = LARGE_BYTES // 4
"""After an input that took as much memory the next ones get a new process: a process only tells its highest use."""

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


def attempts(name: str, source: Path, scratch: Path, seeds: Sequence[int]) -> Iterator[Case]:
    """Try changed inputs one after another.

    A process is forked for them, which costs as much as a small input does. An input that ends it is bad; another
    process then goes on with the next.

    Args:
        name: the kind.
        source: what `prepare` returned.
        scratch: an empty folder.
        seeds: where the changes come from.
    """
    while seeds:
        before = len(seeds)
        for case in _in_child(name, source, scratch, seeds):
            seeds = seeds[1:]
            yield case
        assert len(seeds) < before, "a process tries one input at least"


def _in_child(name: str, source: Path, scratch: Path, seeds: Sequence[int]) -> Iterator[Case]:
    """Try inputs in a forked process, until one of them ends it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _try_all(name, source, scratch, seeds, writer)
        finally:
            os._exit(1)  # a child must not go on as if it were its parent
    os.close(writer)
    tried = 0
    try:
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while not (waits := _waits_for_ever(child, pipe)) and (line := pipe.readline()):
                tried += 1
                yield Case(**json.loads(line))
    finally:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    if tried < len(seeds) and (waits or os.waitstatus_to_exitcode(status)):
        ended = f"the process ended with status {os.waitstatus_to_exitcode(status)}"
        detail = "the process waited and computed nothing" if waits else ended
        yield Case(seeds[tried], "unknown", "uncaught", detail, usage.ru_utime + usage.ru_stime, 0)


def _waits_for_ever(child: int, pipe: IO[bytes]) -> bool:
    """Wait until a process says what became of an input or ends, and return whether it computes nothing instead."""
    process, before = psutil.Process(child), -1.0
    while not select.select([pipe], [], [], _WAIT_S)[0]:
        times = process.cpu_times()
        if times.user + times.system == before:
            return True
        before = times.user + times.system
    return False


def _try_all(name: str, source: Path, scratch: Path, seeds: Sequence[int], writer: int) -> NoReturn:
    """Try inputs in this process, say after each what became of it, and end the process."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for seed in seeds:
        folder = scratch / str(seed)  # a cache of a folder's content helps no other
        shutil.rmtree(folder, ignore_errors=True)  # of an input that ended its process
        shutil.copytree(source, folder)
        os.chdir(folder)
        case = _try(KINDS[name], folder, seed, random.Random(f"{name} {seed}"))
        os.write(writer, json.dumps(asdict(case)).encode() + b"\n")
        os.chdir(scratch)
        shutil.rmtree(folder)
        if case.extra_bytes > _MUCH_BYTES:
            break
    os._exit(0)


def _try(kind: Kind, folder: Path, seed: int, chance: random.Random) -> Case:
    """Change a folder, use it, and say what became of it."""
    from harness.errors import UserError
    from harness.escape import message

    what = kind.change(folder, chance)
    begun, memory = _computed(), psutil.Process().memory_info().rss
    limit = int(begun) + _KILL_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    outcome: Outcome
    try:
        kind.use(folder)
        outcome, detail = "passed", ""
    except UserError as error:
        outcome, detail = "refused", message(str(error))  # as the command line prints it
        if not detail.strip() or len(detail) > _LINE or not detail.isprintable():
            outcome = "uncaught"
    except BaseException as error:
        outcome, detail = _other(error, is_command=kind.change is KINDS["options"].change)
    unit = 1 if sys.platform == "darwin" else 1024
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - memory
    return Case(seed, what, outcome, detail[-3_000:], _computed() - begun, extra)


def _computed() -> float:
    """Return the seconds that this process and those it waited for have computed."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _other(error: BaseException, is_command: bool) -> tuple[Outcome, str]:
    """Return what became of an input that raised something else than a `UserError`."""
    # The command line prints both in one line: wrong use of an option, and what the operating system refuses.
    if is_command and (type(error).__module__.startswith(("typer", "click")) or isinstance(error, OSError)):
        return "refused", str(error)
    if isinstance(error, SystemExit):
        return ("refused" if error.code else "passed"), ""
    return "uncaught", traceback.format_exc()
