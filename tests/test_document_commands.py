"""The commands and the Python code of the documents run, in the order in which a reader meets them.

Runs are made short: one optimiser step with one seed, on a few generated problems. What needs a GPU, a network or
weights that are not here is only parsed, in `tests/test_documents.py`.
"""

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config.recipe import CaptionRecipe, ChoiceRecipe
from harness.data.mini.captions import build_captions
from methods import get_method, registry
from tests.command_line import call
from tests.folders import save_mini
from tests.outside.packages import install, seen_here
from tests.test_documents import DOCUMENTS, ROOT, commands_in, document_name, read

pytestmark = pytest.mark.slow
ELSEWHERE = (
    "--model 7b",
    "--model 13b",
    "--model smol",
    "--device cuda",
    " data fetch",
    "/weights/",
    " doctor",
    " pretrain",
    "/seed0-0123456789abcdef",
    "--adapter memvp-tiny",
)
"""Parts of commands that need a GPU, a network, an hour, or weights or an adapter that are not here."""
OTHER_PROGRAMS = (
    "accelerate",
    "torchrun",
    "pip install",
    "tox",
    "ruff",
    "pre-commit",
    "python -m pytest",
    "python -m tests.",
    "docker",
    "mkdir",
)
"""What else a shell block may begin a line with. It is not run."""
_CODE = re.compile(r"^```(sh|python)\n(.*?)^```$|`(python -m harness [^`\n]+)`", re.DOTALL | re.MULTILINE)


def steps_of(text: str) -> list[tuple[str, str]]:
    """Return what a reader of a document does: pairs of `python` and code, or `harness` and a command line."""
    steps: list[tuple[str, str]] = []
    for match in _CODE.finditer(text):
        language, block, inline = match.groups()
        if language == "python":
            steps.append(("python", block))
        elif language == "sh":
            steps += [("harness", line) for line in commands_in(block)]
        elif not _is_mention(inline):
            steps.append(("harness", inline))
    return steps


def _is_mention(line: str) -> bool:
    """Return whether a command in a sentence is only named, or has a placeholder such as RECORD."""
    words = shlex.split(line)[3:]
    named = all(re.fullmatch(r"[a-z]+", word) for word in words) and words[0] != "compare"
    return named or any(word.isupper() for word in words)


def runs_here(line: str) -> bool:
    """Return whether a command needs nothing that is not here."""
    needs_hub = " pull " in line or (" push " in line and "--dry-run" not in line)
    return not needs_hub and not any(part in f" {line} " for part in ELSEWHERE)


RUN = {
    document_name(path): steps
    for path in DOCUMENTS
    # The Python code of CONTRIBUTING.md is the package that the fixture installs.
    if (
        steps := [
            (kind, step)
            for kind, step in steps_of(read(path))
            if (kind == "harness" and runs_here(step)) or (kind == "python" and path.name != "CONTRIBUTING.md")
        ]
    )
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the committed results and with small data sets."""
    place = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "results", place / "results")
    save_mini(place / "scienceqa")
    build_captions(place / "coco", sizes=(24, 8, 12))
    return place


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[None]:
    """Install the example package for this process."""
    install(ROOT / "tests/outside/image_bias", tmp_path)
    with seen_here(tmp_path):
        assert "image_bias" in registry()
        yield


def shortened(line: str, place: Path) -> list[str]:
    """Return the arguments of a command, with the options that make it short behind its own."""
    words = shlex.split(line)[3:]
    if words[0] == "speed":
        return [*words, "--steps", "1", "--train-batch", "1", "--eval-batch", "1", "--text-length", "32"]
    if words[0] != "run":
        return words
    data = ["--data-root", str(place / ("coco" if "coco" in words else "scienceqa"))]
    words += [] if "--data-root" in words else data
    words += [] if "--results" in words else ["--results", str(place / "runs/here")]
    return [*words, "--steps", "1", "--set", "batch_size=4", "--seeds", "0", "--jobs", "1", "--device", "cpu"]


@pytest.mark.parametrize("name", RUN)
@pytest.mark.usefixtures("outside")
def test_what_a_document_tells_to_run_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for kind, step in RUN[name]:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(step, name, "exec"), {"__name__": "__main__"})
            continue
        done = call(*shortened(step, place))
        assert done.code == 0, f"{step}\n{done.err}"
        assert done.out, f"{step}: it printed nothing"


def test_the_documents_with_commands_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/reproduce.md", "docs/first-method.md", "docs/first-task.md"} <= set(
        RUN
    )
    assert ("harness", "python -m harness run --results runs/first") in RUN["README.md"]
    assert {kind for kind, _ in RUN["docs/first-task.md"]} == {"python", "harness"}


def test_a_shell_block_holds_nothing_unknown() -> None:
    blocks = [
        block
        for path in DOCUMENTS
        for block in re.findall(r"^```sh\n(.*?)^```$", read(path), flags=re.DOTALL | re.MULTILINE)
    ]
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert lines
    assert not [line for line in lines if not line.startswith(("python -m harness", *OTHER_PROGRAMS))]


def test_no_command_stands_in_a_block_that_is_not_run() -> None:
    blocks = [
        (document_name(path), *found)
        for path in DOCUMENTS
        for found in re.findall(r"^( *)(?:```|~~~)([^\n]*)\n(.*?)^ *(?:```|~~~)$", read(path), re.DOTALL | re.MULTILINE)
    ]
    assert {"sh", "python", "text"} <= {language for _, _, language, _ in blocks}
    run = {("", "sh"), ("", "python")}
    assert not [block for block in blocks if block[1:3] not in run and "harness " in block[3]]


def test_the_keys_of_set_are_fields_of_a_recipe_or_a_method() -> None:
    named = {key for path in DOCUMENTS for key in re.findall(r"--set ([\w.]+)=", read(path))}
    assert {"base_lr", "scoring"} <= named
    recipes = {*ChoiceRecipe.model_fields, *CaptionRecipe.model_fields}
    for key in named - {"key", "METHOD.key"}:
        owner, _, field = key.rpartition(".")
        if owner in ("", "image_bias"):
            assert field in recipes | {"projector_dim"}, key
        else:
            assert field in recipes | set(get_method(owner).Config.model_fields), key
