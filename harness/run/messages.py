"""The progress of a run that another process makes: sent as messages, through a pipe or a file, and shown here."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from harness.run.progress import Progress, SweepProgress

Message = (
    tuple[Literal["begin"]]
    | tuple[Literal["plan"], dict[str, int]]
    | tuple[Literal["start"], str, int, int]
    | tuple[Literal["advance"], int, str]
    | tuple[Literal["validated"], float]
    | tuple[Literal["say"], str]
)
"""That a run begins, or after that a call of its `Progress`, as name and arguments."""
BEGIN: Message = ("begin",)
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


class SentProgress:
    """The progress of a run, sent to the process that shows it; see `Progress`.

    Args:
        send: called with each message.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    def plan(self, phases: Mapping[str, int]) -> None:
        """See `Progress.plan`."""
        self._send(("plan", dict(phases)))

    def start(self, phase: str, total: int, validated_every: int = 0) -> None:
        """See `Progress.start`."""
        self._send(("start", phase, total, validated_every))

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        self._send(("advance", done, note))

    def validated(self, seconds: float) -> None:
        """See `Progress.validated`."""
        self._send(("validated", seconds))

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._send(("say", line))


def repeat(message: Message, progress: Progress) -> None:
    """Call the method of `progress` that a message stands for."""
    name, *arguments = message
    getattr(progress, name)(*arguments)


class ReceivedProgress:
    """The progress of a run, shown as its messages say.

    Args:
        name: what the run is called in each line.
        sweep: shows it.
    """

    def __init__(self, name: str, sweep: SweepProgress) -> None:
        self._name, self._sweep = name, sweep
        self._progress: Progress | None = None
        self._shown = ExitStack()

    @property
    def begun(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._progress is not None

    def receive(self, message: Message) -> None:
        """Show what a message says. Without the one that the run begins, nothing is shown."""
        if message == BEGIN:
            if self.begun:  # in a process that was lost
                self.end()
                self._sweep.repeat()
            self._progress = self._shown.enter_context(self._sweep.run(self._name))
        elif self._progress is not None:
            repeat(message, self._progress)

    def end(self) -> None:
        """Show the run no longer."""
        self._shown.close()
        self._progress = None


class MessageFile:
    """Messages in a file, one a line. The process of a run appends them, and another one reads what is new.

    Args:
        path: the file. What it holds already is not read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0

    def write(self, message: Message) -> None:
        """Append a message. It is lost where that is not possible: the run is worth more."""
        # Opened each time, because a network file system shows others what is written only when the file is closed.
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")

    def read(self) -> list[Message]:
        """Return the messages that are new since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:  # not begun, or ended already
            return []
        lines = new[: new.rfind(b"\n") + 1]
        self._read += len(lines)
        found: list[Message] = []
        for line in lines.splitlines():
            with suppress(ValidationError):  # half a line, from a process that was killed
                found.append(_MESSAGE.validate_json(line))
        return found
