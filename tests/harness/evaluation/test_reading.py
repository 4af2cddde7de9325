"""Reading the choice in a text: a letter counts where it stands alone."""

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation.reading import read_answer, read_letter

TEXTS = st.text(max_size=40) | st.text("The answris.ABCD(): '-\n", max_size=40)
WORDS = st.text(string.ascii_letters, min_size=1, max_size=8)
LETTERS = st.sampled_from("ABCDE")


@pytest.mark.parametrize(
    ("text", "alone", "loose"),
    [
        ("B", 1, 1),
        (" B", 1, 1),
        ("( C )", 2, 2),
        ("the B A", 1, 1),
        ("Australia", None, 0),
        ("Both, so C", 2, 1),
        ("B's", None, 1),
        ("A-level: B", 1, 0),
        ("b", None, None),
        ("", None, None),
        ("D", None, None),
        ("Z", None, None),
        ("É", None, None),
    ],
)
def test_letter_after_the_answer_is(text: str, alone: int | None, loose: int | None) -> None:
    assert read_letter(text, 3) == alone
    assert read_letter(text, 3, loose=True) == loose


@pytest.mark.parametrize(
    ("text", "alone", "loose"),
    [
        ("The answer is B.", 1, 1),
        ("The answer is B. BECAUSE: of it", 1, 1),
        ("So. The answer is C, clearly", 2, 2),
        ("Long ago.\nThe answer is C.", 2, 2),
        ("The answer is Australia.", None, 0),
        ("The answer is B", 1, None),
        ("The answer is (B).", 1, None),
        ("The answer is: B.", 1, None),
        ("The answer is D.", None, None),
        ("The answer is b.", None, None),
        ("B", 1, None),
        ("(B)", 1, None),
        ("B. the cat", 1, None),
        ("A cat", None, None),
        ("A.M.", None, None),
        ("the answer is B.", 1, None),
        ("The answer is: **(B)**", 1, None),
        ("Answer: B", 1, None),
        ("Final answer: B\n", 1, None),
        ("**Answer**: *B*", 1, None),
        ("ANSWER: (C) the dog", 2, None),
        ("Answer: b", None, None),
        ("Answer: B-side", None, None),
        ("Unanswer: B", None, None),
        ("Answers: B", None, None),
        ("Answer B", None, None),
        ("**B**", 1, None),
        ("**B.** the cat", 1, None),
        ("**(B)** the cat", 1, None),
        ("*B*, the cat", 1, None),
        ("**B**ig", None, None),
        ("*A cat*", None, None),
        ("B*2", None, None),
        ("Answer: A. Answer: A", 0, None),
        ("Answer: A. Answer: B", None, None),
        ("The answer is A. The answer is A.", 0, 0),
        ("The answer is A. The answer is B.", None, 0),
        ("The answer is A or B.", None, 0),
        ("The answer is A and C.", None, 0),
        ("The answer is (A) or (B).", None, None),
        ("The answer is A/B.", None, 0),
        ("The answer is A, B.", None, 0),
        ("The answer is A, B and C.", None, 0),
        ("Answer: A or B", None, None),
        ("A) or B)", None, None),
        ("The answer is C++.", None, 2),
        ("The answer is B.C.", None, 1),
        ("The answer is B.BECAUSE: of it", 1, 1),
        ("The answer is B or Both.", 1, 1),
        ("The answer is B, and it flies.", 1, 1),
        ("", None, None),
    ],
)
def test_whole_answer(text: str, alone: int | None, loose: int | None) -> None:
    assert read_answer(text, 3) == alone
    assert read_answer(text, 3, loose=True) == loose


def test_published_files_name_their_answer_once() -> None:
    assert read_answer("The answer is B.", 3, loose=True, once=True) == 1
    assert read_answer("The answer is B. The answer is B.", 3, loose=True, once=True) is None


def test_the_examples_of_the_document_are_read_so() -> None:
    document = Path(__file__).parents[3] / "docs/protocols.md"
    _, _, table = document.read_text(encoding="utf-8").partition("| a text of the uniform protocol | is read as |\n")
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", table.partition("\n\n")[0], flags=re.MULTILINE)
    assert len(rows) > 12 and {said for _, said in rows} == {"B", "nothing"}
    for text, said in rows:
        assert read_answer(text, 5) == {"B": 1, "nothing": None}[said], text


@given(TEXTS, st.integers(1, 5), st.booleans())
def test_a_choice_that_is_read_exists_and_its_letter_is_in_the_text(text: str, count: int, loose: bool) -> None:
    for choice in (read_letter(text, count, loose), read_answer(text, count, loose)):
        assert choice is None or (0 <= choice < count and string.ascii_uppercase[choice] in text)


@given(TEXTS, st.integers(1, 5))
def test_a_letter_that_stands_alone_is_the_loose_one_where_it_comes_first(text: str, count: int) -> None:
    first = next((character for character in text if character in string.ascii_uppercase), None)
    found = read_letter(text, count)
    if found is not None and first == string.ascii_uppercase[found]:
        assert read_letter(text, count, loose=True) == found


@given(LETTERS, WORDS)
def test_a_word_is_no_letter(letter: str, rest: str) -> None:
    for text in (letter + rest, f"The answer is {letter}{rest}.", f"The answer is {rest}{letter}."):
        assert read_letter(text.removeprefix("The answer is"), 5) is None
        assert read_answer(text, 5) is None


@given(LETTERS, st.sampled_from([".", "", ",", ")", "!", "\n", '"', " because"]), st.text("xyz ,\n", max_size=20))
def test_a_letter_that_stands_alone_is_read_whatever_is_around_it(letter: str, end: str, before: str) -> None:
    want = ord(letter) - ord("A")
    assert read_letter(f" {letter}{end}", 5) == want
    assert read_answer(f"{before} The answer is {letter}{end}", 5) == want


@given(st.lists(LETTERS, min_size=1, max_size=4))
def test_sentences_must_agree(letters: list[str]) -> None:
    text = " ".join(f"The answer is {letter}." for letter in letters)
    want = ord(letters[0]) - ord("A") if len(set(letters)) == 1 else None
    assert read_answer(text, 5) == want
    first = ord(letters[0]) - ord("A")
    assert read_answer(text, 5, loose=True) == first
    assert read_answer(text, 5, loose=True, once=True) == (first if len(letters) == 1 else None)
