"""What the user types, before any of it reaches a run."""

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import typed
from harness.errors import UserError


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("tuning", "has no equals sign"),
        (f"batch_size={'9' * 5000}", "too many digits"),
        (f"batch_size={'[' * 9000}{']' * 900}", None),
        (f"image_prefix={'x' * 20_000}", "20,000 characters"),
        ('image_prefix="\\ud800"', "half of a surrogate pair"),
    ],
)
def test_a_setting_that_cannot_be_read(pair: str, message: str | None) -> None:
    if message is None:  # either too deep for Python's parser, or text, which no field takes
        assert refused(pair) or isinstance(typed.settings([pair])["batch_size"], str)
    else:
        assert message in refused(pair)


def refused(pair: str) -> str:
    """Return the message that refuses a pair; empty if it is taken."""
    try:
        typed.settings([pair])
    except UserError as error:
        return str(error)
    return ""


@given(st.text(max_size=50))
def test_a_setting_is_json_or_text(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = text
    if not refused(f"key={text}"):
        assert repr(typed.settings([f"key={text}"])) == repr({"key": expected})  # NaN is not equal to itself


def test_settings_keep_their_types() -> None:
    found = typed.settings(["a=1", "b=1e-3", "c=[0.9, 0.95]", "d=mean", "dehvf.e=null", "f=x=y"])
    assert found == {"a": 1, "b": 1e-3, "c": [0.9, 0.95], "d": "mean", "dehvf.e": None, "f": "x=y"}


def test_an_argument_that_is_no_utf8_is_refused() -> None:
    typed.require_utf8(["run", "--set", "tuning=café"])
    with pytest.raises(UserError, match="is not in UTF-8"):
        typed.require_utf8(["run", "--set", "tuning=caf\udce9"])


@pytest.mark.parametrize("text", ["", ",", " , ,"])
def test_a_list_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--methods {text}: contains no name")):
        typed.names("--methods", text)
    assert typed.names("--methods", "a, b,") == ("a", "b")


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_options_of_a_question_that_are_given_but_empty_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--choices {text}: contains no option")):
        typed.choices([text])
    assert typed.choices([]) == ()
    assert typed.choices(["red, blue"]) == typed.choices(["red", "blue"]) == ("red", "blue")


@pytest.mark.parametrize("text", ["one", "1,x", "9" * 5000, "1.0", "1_0", "+1", "²"])
def test_seeds_are_whole_numbers(text: str) -> None:
    with pytest.raises(UserError, match="not a list of whole numbers"):
        typed.integers("--seeds", text)
    assert typed.integers("--seeds", "2, 0,2") == (2, 0)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "9" * 12, "²", "none", ""])
def test_a_count_or_auto(text: str) -> None:
    with pytest.raises(UserError, match="neither auto nor a whole number"):
        typed.count_or_auto("--micro-batch", text)
    assert typed.count_or_auto("--micro-batch", "auto") is None
    assert typed.count_or_auto("--workers", "0", least=0) == 0


def test_a_parameter_is_bounded_as_a_setting_is() -> None:
    with pytest.raises(UserError, match=r"^--submitit a: has 20,000 characters; give at most 10,000$"):
        typed.parameters("--submitit", f"a={'1' * 20_000}")
    deep = "[" * 3000
    with suppress(UserError):  # where it is too deep for Python's parser
        assert typed.parameters("--submitit", f"a={deep}") == {"a": deep}


def test_parameters_keep_their_types_and_commas() -> None:
    text = "timeout_min=600,mem_gb=1.5,slurm_partition=gpu,debug,slurm_exclusive=true"
    assert typed.parameters("--submitit", text) == {
        "timeout_min": 600,
        "mem_gb": 1.5,
        "slurm_partition": "gpu,debug",
        "slurm_exclusive": True,
    }
