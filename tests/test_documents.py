"""The documents and the files around the code agree with the code.

Commands in a document parse, links lead to files, and a wheel contains what pyproject.toml promises.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness import cli
from harness.data.problem import Problem
from harness.data.prompts import build_prompt
from harness.records import SCHEMA_VERSION
from tests.test_architecture import LEVELS

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
LINKING = (
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "results/README.md",
    ROOT / "harness/assets/tiny/README.md",
    ROOT / "tests/golden/README.md",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


STAND_IN_FOR_TOX = """
import os, re, sys
from pathlib import Path

module, *arguments = sys.argv[2:]
if module == "tox":
    listed = re.search("^env_list = (.*)$", Path("tox.ini").read_text(), re.MULTILINE)[1].split(", ")
    if "-e" in arguments:
        listed = arguments[arguments.index("-e") + 1].split(",")
    if "--skip-env" in arguments:
        listed = [name for name in listed if not re.match(arguments[arguments.index("--skip-env") + 1], name)]
    Path(__file__).with_name("ran").open("a").writelines(f"{name} " for name in listed)
    sys.exit(os.environ["FAILING"] in listed)
"""
"""A `python` that notes which environments tox is asked for, and ends as if one of them had failed."""


def read(name: str | Path) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def document_name(path: Path) -> str:
    """Return the path below the repository, used as the name of a test."""
    return path.relative_to(ROOT).as_posix()


def commands_in(text: str) -> list[str]:
    """Return the `python -m harness ...` command lines of a text, without comments and without what follows `&&`."""
    found = re.findall(r"python -m harness [^`\n]+", text)
    return [re.split(r"\s#\s|&&", line)[0].strip() for line in found]


def subcommand(line: str) -> tuple[Any, list[str]]:
    """Return the subcommand that a command line names, and the words after it."""
    command: Any = typer.main.get_command(cli.app)
    words = shlex.split(line)[3:]
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"no such command: {line}"
        command = command.commands[words.pop(0)]
    return command, words


OTHER_OPTIONS = frozenset(
    # of every command; of accelerate, torchrun, pip, tensorboard, ruff, benchmarks/gpu.sh and tests.fuzz
    {"--help", "--num_processes", "--config_file", "--cpu", "--no-deps", "--logdir", "--check", "--budget"}
    | {"--count", "--kills", "--state", "--multi_gpu", "--standalone", "--nproc_per_node"}
)
"""Options that documents name and that are of other programs."""
COMMANDS = sorted({line for path in DOCUMENTS for line in commands_in(read(path))})
TYPED = sorted(
    {
        line
        for path in DOCUMENTS
        for block in re.findall(r"^```sh\n(.*?)^```$", read(path), flags=re.DOTALL | re.MULTILINE)
        for line in commands_in(block)
    }
)
"""Commands of the shell blocks, which a reader copies without changes."""


def test_there_are_documents_with_commands() -> None:
    names = {document_name(path) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/commands.md"} <= names
    assert "python -m harness run --results runs/first" in TYPED
    assert "python -m harness score coco" in COMMANDS


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_exists(line: str) -> None:
    command, words = subcommand(line)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known | {"--help"}


@pytest.mark.parametrize("line", TYPED)
def test_commands_of_shell_blocks_parse(line: str) -> None:
    command, words = subcommand(line)
    command.make_context(command.name, list(words))


def test_every_option_that_a_document_names_exists() -> None:
    def options(command: Any) -> set[str]:
        own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        inner = [options(each) for each in getattr(command, "commands", {}).values()]
        return own.union(*inner)

    known = options(typer.main.get_command(cli.app)) | OTHER_OPTIONS
    for path in DOCUMENTS:
        code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", read(path), flags=re.DOTALL | re.MULTILINE))
        named = {option for text in code for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
        assert named <= known, f"{document_name(path)}: {sorted(named - known)}"


def test_every_subcommand_is_in_the_list_of_commands() -> None:
    def leaves(command: Any, path: str) -> list[str]:
        inner = getattr(command, "commands", None)
        return [leaf for name in inner for leaf in leaves(inner[name], f"{path} {name}")] if inner else [path]

    listed = re.findall(r"^\| `(python -m harness[^`]*)`", read("docs/commands.md"), flags=re.MULTILINE)
    there = leaves(typer.main.get_command(cli.app), "python -m harness")
    assert sorted(re.sub(r"( [A-Z]+)+$", "", line) for line in listed) == sorted(there)


@pytest.mark.parametrize("path", LINKING, ids=document_name)
def test_relative_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", read(path))
    relative = [target.partition("#")[0] for target in targets if "://" not in target]
    assert not [target for target in relative if target and not (path.parent / target).exists()]


def test_contributing_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", read("CONTRIBUTING.md"))) - {"tests/methods/test_NAME.py"}
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_contributing_states_the_levels() -> None:
    stated = " → ".join(", ".join(f"`{name}`" for name in level) for level in LEVELS)
    assert f"{stated}." in " ".join(read("CONTRIBUTING.md").split())


def test_the_extras_are_named_as_a_checkout_installs_them() -> None:
    """The package is on no index, so `pip install peft-vl-bench[...]` fails."""
    files = [*DOCUMENTS, *(ROOT / "harness").rglob("*.py"), *(ROOT / "methods").rglob("*.py")]
    assert not [document_name(path) for path in files if f"{PROJECT['name']}[" in read(path)]
    extras = {name for path in DOCUMENTS for name in re.findall(r"""-e ["']\.\[([\w,]+)\]""", read(path))}
    assert {part for name in extras for part in name.split(",")} <= PROJECT["optional-dependencies"].keys()


def test_the_changelog_names_the_version_of_the_records() -> None:
    assert f"The current `schema_version` is {SCHEMA_VERSION}." in read("CHANGELOG.md")
    assert "\n## Unreleased\n" in read("CHANGELOG.md")


def test_the_citation_agrees_with_the_project() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith(PROJECT["name"])
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["authors"] == PROJECT["authors"]
    assert citation["message"]


def test_a_release_tag_names_the_version_and_its_changes() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tags = listed.stdout.split()
    if not tags:
        pytest.skip("no release tag on this commit")
    assert tags == [f"v{PROJECT['version']}"]
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", read("CHANGELOG.md"), flags=re.MULTILINE)


def test_the_prompt_that_the_questions_show_is_the_real_one() -> None:
    prompt = build_prompt(Problem("1", "test", "Which is the heaviest?", ("a feather", "a brick"), answer=1))
    assert f"```text\n{prompt.prompt}{prompt.answer}\n```" in read("docs/questions.md")


def test_the_licence_is_whole() -> None:
    text = read("LICENSE")
    assert text.lstrip().startswith("Apache License") and "END OF TERMS AND CONDITIONS" in text


def test_pre_commit_runs_only_what_the_extras_install() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    extras = PROJECT["optional-dependencies"]
    installed = {re.split(r"[<>=~ ]", entry)[0] for entry in extras["lint"] + extras["types"]}
    # `pre-commit-hooks` installs one program for each of its hooks.
    owners = {"check-added-large-files": "pre-commit-hooks", "end-of-file-fixer": "pre-commit-hooks"}
    for hook in repository["hooks"]:
        program = shlex.split(hook["entry"])[0]
        assert hook["language"] == "system"
        assert owners.get(program, program) in installed, hook["id"]


def test_the_workflow_runs_the_environments_of_tox() -> None:
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    matrix = job["strategy"]["matrix"]["include"]
    environments = re.search(r"^env_list = (.*)$", read("tox.ini"), flags=re.MULTILINE)
    assert environments and [row["env"] for row in matrix] == [*re.split(r",\s*", environments[1]), "smol"]
    for row in matrix:
        assert not row["env"].startswith("py") or row["env"] == "py" + row["python"].replace(".", "")
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command.startswith("bash .ci/run -e ${{ matrix.env }}")


def test_the_tests_of_extras_run_where_these_are_installed() -> None:
    tox = RawConfigParser()
    tox.read_string(read("tox.ini"))
    flows, quick = tox["testenv:flows"], tox["testenv"]
    needed = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r'mark\.extra\("(\w+)"', read(path))
    }
    assert (
        "ray" in needed and needed <= set(re.split(r",\s*", flows["extras"])) <= PROJECT["optional-dependencies"].keys()
    )
    assert '-m "slow or extra"' in flows["commands"] and '-m "not slow and not extra"' in quick["commands"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script needs bash")
@pytest.mark.parametrize("failing", ["py311", "types", ""])
def test_the_script_of_ci_runs_every_environment_and_tells_a_failure(failing: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "tox.py"}" "$@"\n')
    stand_in.chmod(0o755)
    (tmp_path / "tox.py").write_text(STAND_IN_FOR_TOX)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "FAILING": failing}

    def ran(*arguments: str) -> list[str]:
        (tmp_path / "ran").write_text("")
        done = subprocess.run(["bash", ROOT / ".ci" / "run", *arguments], env=environment, check=False)
        ran = (tmp_path / "ran").read_text().split()
        assert (done.returncode != 0) == (failing in ran)
        return ran

    listed = re.search(r"^env_list = (.*)$", read("tox.ini"), flags=re.MULTILINE)
    assert listed and sorted(ran()) == sorted(re.split(r",\s*", listed[1]))
    assert ran("-e", "types") == ["types"]


def test_the_pages_workflow_publishes_what_tox_and_the_harness_write() -> None:
    build, deploy = yaml.safe_load(read(".github/workflows/pages.yml"))["jobs"].values()
    assert deploy["needs"] == "build"
    commands = [step["run"] for step in build["steps"] if "run" in step]
    assert commands[0] == "bash .ci/run -e docs"
    (upload,) = [step["with"]["path"] for step in build["steps"] if "upload" in step.get("uses", "")]
    assert upload == re.search(r"^site_dir: (.*)$", read("mkdocs.yml"), flags=re.MULTILINE)[1]
    arguments = shlex.split(commands[-1])
    assert arguments[arguments.index("--out") + 1].startswith(f"{upload}/")


@pytest.mark.parametrize("name", ["bug_report", "new_method", "wrong_number"])
def test_issue_templates_are_complete(name: str) -> None:
    template = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert template["name"] and template["description"]
    fields = [field for field in template["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel of the project, built from a copy of its files with the installed setuptools; nothing is downloaded."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("methods", "harness"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    (built,) = (tree / "dist").glob("*.whl")
    return zipfile.Path(built)


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "methods", "harness"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert listed.stdout and set(listed.stdout.splitlines()) <= set(wheel.root.namelist())


def test_the_wheel_states_its_licence(wheel: zipfile.Path) -> None:
    (information,) = [path for path in wheel.iterdir() if path.name.endswith(".dist-info")]
    assert "License-Expression: Apache-2.0" in information.joinpath("METADATA").read_text(encoding="utf-8")
    assert information.joinpath("licenses", "LICENSE").is_file()
