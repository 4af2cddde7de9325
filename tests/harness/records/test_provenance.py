"""The commit and the state of the code that a record was made with."""

import subprocess

from harness.records import collect_git


def test_git_of_a_folder_that_is_no_checkout(tmp_path):
    git = collect_git(tmp_path)
    assert git.commit is None and git.dirty is None and git.reason


def test_git_sees_changed_code_and_not_changed_results(tmp_path):
    def run(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "harness").mkdir()
    code = tmp_path / "harness" / "a.py"
    code.write_text("1\n")
    run("init", "-q")
    run("add", ".")
    run("commit", "-q", "-m", "x")
    (tmp_path / "results.json").write_text("{}")
    clean = collect_git(tmp_path)
    assert clean.commit and clean.dirty is False
    code.write_text("2\n")
    assert collect_git(tmp_path).dirty is True
