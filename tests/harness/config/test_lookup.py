"""An unknown name, or a broken installed package, is reported in one line that names it."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config.lookup import named_method, registered_names
from harness.errors import UserError


def test_a_registered_method_is_its_class() -> None:
    assert all(named_method(name).name == name for name in registered_names())


@pytest.mark.parametrize(
    ("name", "target", "complaint"),
    [
        ("lost", "no_such_module:Method", "lost: no_such_module:Method: No module named 'no_such_module'"),
        ("lost", "methods.memvp:Lost", "lost: methods.memvp:Lost: module 'methods.memvp' has no attribute 'Lost'"),
        ("other", "methods.memvp:MemVP", "other: methods.memvp:MemVP has the name 'memvp'"),
        ("ordered", "collections:OrderedDict", "ordered: collections:OrderedDict has the name None"),
    ],
)
def test_a_broken_package_is_named_and_the_others_stay(install: Any, name: str, target: str, complaint: str) -> None:
    install(**{name: target})
    with pytest.raises(UserError, match=re.escape(complaint)):
        named_method(name)
    assert name in registered_names() and named_method("memvp").name == "memvp"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("class Method(:", "half: half_made:Method: invalid syntax"),
        ("raise RuntimeError('not\\ntoday')", "half: half_made:Method: not today; repair its package"),
        ("raise KeyError", "half: half_made:Method: KeyError; repair"),
        ("class Method:\n    name = 'half'\n    title = 'Half'", "half: half_made:Method has no source"),
    ],
)
def test_whatever_a_package_does_when_imported_is_one_line(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    (tmp_path / "half_made.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "half_made", raising=False)
    install(half="half_made:Method")
    with pytest.raises(UserError, match=re.escape(complaint)) as error:
        named_method("half")
    assert "\n" not in str(error.value)


def test_a_name_taken_twice_stops_everything(install: Any) -> None:
    install(memvp="elsewhere:Other")
    for ask in (registered_names, lambda: named_method("dehvf")):
        with pytest.raises(UserError, match=r"'memvp' is registered twice: methods\.memvp:MemVP and elsewhere:Other"):
            ask()


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"--methods memvpp: unknown method 'memvpp': did you mean memvp\?"):
        named_method("memvpp")
