"""The progress of a run on another machine, which comes through a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.run.messages import BEGIN, MessageFile, ReceivedProgress, SentProgress


class Shown:
    """A sweep that keeps what is shown of its runs."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []
        self.repeated = 0

    def repeat(self) -> None:
        self.repeated += 1

    @contextmanager
    def run(self, name: str) -> Iterator[SentProgress]:
        self.lines.append((name,))
        yield SentProgress(self.lines.append)
        self.lines.append(("end",))


def test_progress_comes_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text('["begin"]\n["say", "of an earlier sweep"]\n')
    read, shown = MessageFile(file), Shown()
    received = ReceivedProgress("a run", shown)  # type: ignore[arg-type]  # it stands for a SweepProgress

    def show() -> list[tuple[object, ...]]:
        for message in read.read():
            received.receive(message)
        found = shown.lines[:]
        shown.lines.clear()
        return found

    assert show() == []
    written = MessageFile(file)
    sent = SentProgress(written.write)
    written.write(BEGIN)
    sent.plan({"training": 8})
    sent.start("training", 4, validated_every=2)
    assert show() == [("a run",), ("plan", {"training": 8}), ("start", "training", 4, 2)]
    sent.say("resuming after step 2")
    sent.advance(4, "loss 1.0")
    sent.validated(0.5)
    assert show() == [("say", "resuming after step 2"), ("advance", 4, "loss 1.0"), ("validated", 0.5)]
    with file.open("a") as damaged:
        damaged.write('["advance", 5')  # its process is killed
    assert show() == [] and shown.repeated == 0
    with file.open("a") as damaged:
        damaged.write('\n["close"]\n')
    written.write(BEGIN)
    assert show() == [("end",), ("a run",)] and shown.repeated == 1
    received.end()
    assert not received.begun
    file.unlink()
    assert show() == [("end",)]


def test_a_run_goes_on_where_its_messages_cannot_be_written(tmp_path: Path) -> None:
    MessageFile(tmp_path / "gone" / "messages.jsonl").write(BEGIN)
