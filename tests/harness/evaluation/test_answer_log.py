"""Answers that are kept batch by batch, and an evaluation that goes on from them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.errors import UserError
from harness.evaluation import answer_log
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from methods.base import Batch
from tests.folders import byte_tokenizer


def test_a_kept_batch_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    log = AnswerLog(path)
    log.add(["a", "b"], [1, [2.5, "x"]], ["b"])
    log.add(["c"], [None], [])
    again = AnswerLog(path)
    assert again.find(["a", "b"]) == ([1, [2.5, "x"]], ["b"])
    assert again.find(["c"]) == ([None], [])
    assert again.find(["b", "a"]) is None and again.find(["a"]) is None


def test_the_seconds_of_found_batches_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(answer_log, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    log = AnswerLog(tmp_path / "answers.jsonl")
    for name, clock.now in (("a", 2.0), ("b", 5.0), ("c", 6.5)):
        log.add([name], [1], [])
    again = AnswerLog(tmp_path / "answers.jsonl")
    assert again.earlier_s == 0
    again.find(["a"]), again.find(["c"]), again.find(["other"])
    assert again.earlier_s == 2 + 1.5


def test_without_a_file_nothing_is_kept() -> None:
    log = AnswerLog()
    log.add(["a"], [1], [])
    assert log.find(["a"]) is None


@given(st.binary(max_size=60))
def test_what_is_no_whole_line_is_passed_over(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    path.write_bytes(junk)
    AnswerLog(path).add(["a"], [1], [])
    assert AnswerLog(path).find(["a"]) == ([1], [])


def test_a_line_that_was_cut_off_is_answered_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerLog(path).add(["a"], [1], [])
    path.write_bytes(path.read_bytes()[:-4])
    assert AnswerLog(path).find(["a"]) is None


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"answers\.jsonl: cannot be written"):
        AnswerLog(tmp_path / "file" / "answers.jsonl").add(["a"], [1], [])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_an_interrupted_evaluation_goes_on_and_asks_nothing_twice(
    stop_after: int, workers: int, tmp_path: Path
) -> None:
    examples = [Example(str(i), "x" * (1 + i * 7 % 10), None) for i in range(7)]
    asked: list[str] = []

    def answer(batch: Batch, ids: list[str]) -> list[int]:
        if len(asked) >= 2 * stop_after and not finishing:
            raise KeyboardInterrupt
        asked.extend(ids)
        return [int(row.sum()) for row in batch.input_ids_BL]

    def evaluate(workers: int) -> tuple[list[int], set[str]]:
        collator = Collator(byte_tokenizer(), ImagePreprocessor(32), max_length=8, padding_side="left")
        log = AnswerLog(tmp_path / "answers.jsonl")
        found = answer_in_batches(answer, examples, collator, 2, "cpu", lambda done: None, log, Loading(workers))
        return found, collator.cut

    finishing = False
    with pytest.raises(KeyboardInterrupt):
        evaluate(workers)
    finishing = True
    resumed = evaluate(workers)
    assert sorted(asked) == [example.id for example in examples]
    (tmp_path / "answers.jsonl").unlink()
    assert evaluate(0) == resumed
    assert resumed[1]  # some prompts are longer than eight tokens
