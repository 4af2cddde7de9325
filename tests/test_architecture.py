"""Which module may import which, checked on the syntax trees."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from methods import BUILT_IN

ROOT = Path(__file__).parents[1]
LEVELS = (
    ("escape", "numbers"),
    ("errors",),
    ("disk", "locks", "streams", "transfer"),
    ("hub_blobs",),
    ("files", "hub", "processes", "stats", "stopping", "terminal", "typed"),
    ("records",),
    ("config", "data"),
    ("backbone", "evaluation"),
    ("tasks",),
    ("report",),
    ("run",),
    ("cost", "pretrain"),
    ("page", "sharing"),
    ("commands",),
    ("api",),
    ("options",),
    ("parsers",),
    ("cli",),
    ("__main__",),
)
"""The packages and modules directly under harness/, lowest level first. Each imports lower levels and itself only."""
TORCH_FREE = (
    "harness.errors",
    "harness.escape",
    "harness.streams",
    "harness.api",
    "harness.options",
    "harness.parsers",
    "harness.terminal",
    "harness.typed",
    "harness.files",
    "harness.disk",
    "harness.hub",
    "harness.hub_blobs",
    "harness.locks",
    "harness.transfer",
    "harness.stats",
    "harness.records",
    "harness.config",
    "harness.report",
    "harness.page",
    "harness.sharing.upload",
    "harness.sharing.results",
    "harness.commands.push",
    "harness.tasks.facts",
    "harness.evaluation.ids",
    "harness.evaluation.scienceqa_metrics",
    "harness.evaluation.score_scienceqa",
    "harness.evaluation.caption_metrics",
    "harness.evaluation.score_coco",
    "harness.evaluation.java",
    "harness.cost.figure2_plot",
)
"""Modules, or packages with all their modules, that load no torch when they are imported."""
HEAVY = ("torch", "transformers", "open_clip", "peft", "accelerate")
NAMES_METHODS = {"harness.config.recipes"}
"""Modules that may name a method. `harness.report.paper` names none: it reads the names from paper.toml."""
OWNERS = {
    "filelock": {"harness.locks"},
    "open_clip": {"harness.backbone", "harness.pretrain"},
    "peft": {"methods.llava_lora"},
    "tabulate": {"harness.escape"},
    "harness.cli": {"harness.__main__"},
}
"""Package or module -> the only modules, or packages, that import it."""


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for package in ("methods", "harness") for path in (ROOT / package).rglob("*.py")}


@cache
def tree(module: str) -> ast.Module:
    """Return the syntax tree of a module of the project."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _targets(module: str, nodes: list[ast.AST]) -> set[str]:
    """Return the modules that the import statements among `nodes` name."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES}
    return found


def imports(module: str) -> set[str]:
    """Return everything that a module imports, including imports inside its functions."""
    return _targets(module, list(ast.walk(tree(module))))


def _for_types_only(node: ast.AST) -> bool:
    """Return whether a statement is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_at_once(module: str) -> set[str]:
    """Return what is imported when a module is: by its statements outside of functions, and its parent packages."""
    nodes: list[ast.AST] = []
    pending: list[ast.AST] = [tree(module)]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not _for_types_only(node):
            pending += ast.iter_child_nodes(node)
    parents = module.split(".")
    packages = {".".join(parents[:i]) for i in range(1, len(parents))}
    return _targets(module, nodes) | packages


def reached_at_once(module: str) -> set[str]:
    """Return the modules that importing `module` loads, following only the project's own files."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        current = pending.pop()
        if current not in seen:
            seen.add(current)
            if current in MODULES:
                pending += imports_at_once(current)
    return seen


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_there_is_something_to_look_at() -> None:
    assert {"methods.base", "methods.dehvf", "harness.records", "harness.data.prompts"} <= MODULES.keys()
    assert "torch" in reached_at_once("methods.dehvf")
    assert "harness.errors" in reached_at_once("harness.records")


def modules_of(name: str) -> list[str]:
    """Return a module, or a package with all its modules.

    A rule about a missing module would check nothing, so it fails.
    """
    found = [module for module in MODULES if inside(module, name)]
    assert found, f"a rule of the architecture names {name}, which is not there"
    return found


def test_a_rule_about_a_module_that_is_not_there_fails() -> None:
    with pytest.raises(AssertionError, match=r"harness\.tabels, which is not there"):
        modules_of("harness.tabels")


def test_every_rule_names_what_is_there() -> None:
    names = {*TORCH_FREE, *NAMES_METHODS, *OWNERS["open_clip"], *OWNERS["peft"], *OWNERS["harness.cli"]}
    for name in sorted(names):
        modules_of(name)


def test_methods_never_import_the_harness() -> None:
    assert not [
        (module, target)
        for module in MODULES
        if inside(module, "methods")
        for target in imports(module)
        if inside(target, "harness")
    ]


def test_no_method_imports_another_methods_file() -> None:
    files = {target.partition(":")[0] for target in BUILT_IN.values()}
    assert files <= MODULES.keys()
    wrong = [(file, target) for file in files for target in imports(file) if target in files]
    assert not wrong
    # Shared blocks know no method either.
    shared = {module for module in MODULES if inside(module, "methods")} - files
    assert not [(module, target) for module in shared for target in imports(module) if target in files]


def test_data_imports_neither_methods_nor_the_backbone() -> None:
    for module in MODULES:
        if inside(module, "harness.data"):
            reached = imports(module) | reached_at_once(module)
            assert not [t for t in reached if inside(t, "methods") or inside(t, "harness.backbone.loader")], module


def test_the_levels_are_the_tree() -> None:
    there = {
        path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    stated = [name for level in LEVELS for name in level]
    assert sorted(stated) == sorted(there - {"__init__"})


@pytest.mark.parametrize("index", range(len(LEVELS)))
def test_imports_run_one_way(index: int) -> None:
    below = {f"harness.{name}" for level in LEVELS[:index] for name in level}
    for name in LEVELS[index]:
        for module in modules_of(f"harness.{name}"):
            targets = {t for t in imports(module) if inside(t, "harness") and not inside(t, f"harness.{name}")}
            wrong = {t for t in targets - {"harness"} if not any(inside(t, name) for name in below)}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}, which are not on a lower level"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_records_and_tables_import_no_torch(name: str) -> None:
    for module in modules_of(name):
        reached = reached_at_once(module)
        assert not [target for target in reached if target.partition(".")[0] in HEAVY], module


def test_records_and_tables_load_no_torch() -> None:
    """Check the same in a new interpreter, which also shows what third-party packages load."""
    present = [module for name in TORCH_FREE for module in modules_of(name)]
    code = f"import sys, {', '.join(present)}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_records_are_reached_through_one_door() -> None:
    outside = [module for module in MODULES if not inside(module, "harness.records")]
    assert not [(m, t) for m in outside for t in imports(m) if t.startswith("harness.records.")]


@pytest.mark.parametrize("package", OWNERS)
def test_few_files_know_some_packages(package: str) -> None:
    users = {module for module in MODULES if any(inside(target, package) for target in imports(module))}
    users -= {module for module in MODULES if inside(module, package)}
    assert users, f"nothing imports {package}: the rule is about nothing"
    assert not {user for user in users if not any(inside(user, owner) for owner in OWNERS[package])}


READS_ITS_OWN_FILES = {
    "harness.page.build",
    "harness.page.libraries",
    "harness.pretrain.check",
    "harness.records.provenance",
    "harness.run.memory",
}
"""Modules that read a file of this package, of the system, or one that they have just written."""


def test_files_from_outside_are_read_by_the_function_that_bounds_them() -> None:
    readers = {m for m in MODULES if inside(m, "harness") and {"read_text", "read_bytes"} & _identifiers(m)}
    assert readers == READS_ITS_OWN_FILES


def _strings(module: str) -> list[str]:
    """Return the string constants of a module, without docstrings and example command lines."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(module))
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    constants = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)]
    texts = [node.value for node in constants if isinstance(node.value, str) and id(node) not in docstrings]
    return [text for text in texts if not text.startswith("python -m harness ")]


def _identifiers(module: str) -> set[str]:
    """Return the names that a module defines or uses, such as `ratio_to_memvp`."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        for field in ("id", "attr", "name", "arg"):
            if isinstance(value := getattr(node, field, None), str):
                found.add(value)
    return found


def test_the_harness_names_no_method_outside_its_recipes() -> None:
    name = re.compile("|".join(map(re.escape, BUILT_IN)))
    found = [
        (module, text)
        for module in MODULES
        if inside(module, "harness") and not any(inside(module, owner) for owner in NAMES_METHODS)
        for text in [*_strings(module), *_identifiers(module)]
        if name.search(text)
    ]
    assert not found


def test_both_sides_ignore_the_same_label() -> None:
    """`harness.data` may not import `methods`, so each of them defines the value."""
    from harness.data.prompts import IGNORED
    from methods.base import IGNORE_INDEX

    assert IGNORED == IGNORE_INDEX


def test_the_picture_in_contributing_is_the_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"^```text\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert picture
    drawn: dict[str, set[str]] = {}
    folders: list[str] = []
    for line in picture[1].splitlines():
        depth = (len(line) - len(line.lstrip(" "))) // 2
        names = re.findall(r"(?:^|(?<=\s))\w+(?:/|\.py|\.toml)(?=\s|$)", line[: line.find("    ", 2 * depth + 1)])
        if names[0].endswith("/"):
            folders[depth:] = [names[0].rstrip("/")]
            drawn["/".join(folders)] = set()
        else:
            drawn["/".join(folders[:depth])] |= set(names)
    for folder, names in drawn.items():
        if folder.startswith(("methods", "harness")) and names:
            files = {path.name for path in (ROOT / folder).iterdir() if path.suffix in (".py", ".toml")}
            assert names - {"__init__.py"} == files - {"__init__.py", "__main__.py"}, folder
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "harness").rglob("__init__.py")}
    assert {str(path) for path in packages} <= drawn.keys()
