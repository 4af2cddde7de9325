"""The house's import directions, read from the syntax trees."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from methods import registry

ROOT = Path(__file__).parents[1]
TORCH_FREE = (
    "harness.report.tables",
    "harness.cost.figure2_plot",
    "harness.records",
    "harness.report.paper",
    "harness.stats",
)
HEAVY = ("torch", "transformers", "open_clip", "peft", "accelerate")
NAMES_METHODS = {"harness.config.recipes", "harness.report.paper"}


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for package in ("methods", "harness") for path in (ROOT / package).rglob("*.py")}


@cache
def tree(module: str) -> ast.Module:
    """Syntax tree of a module of the project."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _targets(module: str, nodes: list[ast.AST]) -> set[str]:
    """Modules that the import statements among `nodes` name."""
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
    """Everything a module imports, inside its functions too."""
    return _targets(module, list(ast.walk(tree(module))))


def imports_at_once(module: str) -> set[str]:
    """What importing a module imports: its statements outside of functions, and its packages."""
    nodes: list[ast.AST] = []
    pending: list[ast.AST] = [tree(module)]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    parents = module.split(".")
    packages = {".".join(parents[:i]) for i in range(1, len(parents))}
    return _targets(module, nodes) | packages


def reached_at_once(module: str) -> set[str]:
    """Modules that importing `module` loads, as far as the project's own files decide."""
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


def test_methods_never_import_the_harness() -> None:
    assert not [
        (module, target)
        for module in MODULES
        if inside(module, "methods")
        for target in imports(module)
        if inside(target, "harness")
    ]


def test_no_method_imports_another_methods_file() -> None:
    files = {target.partition(":")[0] for target in registry().values()}
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


@pytest.mark.parametrize("module", [module for module in TORCH_FREE if module in MODULES])
def test_records_and_tables_import_no_torch(module: str) -> None:
    reached = reached_at_once(module) | imports(module)
    assert not [target for target in reached if target.partition(".")[0] in HEAVY]


def test_records_and_tables_load_no_torch() -> None:
    """The same, asked of the interpreter, with what third-party packages load."""
    present = [module for module in TORCH_FREE if module in MODULES]
    assert present
    code = f"import sys, {', '.join(present)}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_imports_the_command_line_but_its_entry() -> None:
    users = [module for module in MODULES for target in imports(module) if inside(target, "harness.cli")]
    assert set(users) <= {"harness.__main__"}


@pytest.mark.parametrize(
    ("package", "owners"),
    [("open_clip", {"harness.backbone.loader", "harness.backbone.requirements"}), ("peft", {"methods.llava_lora"})],
)
def test_few_files_know_the_model_libraries(package: str, owners: set[str]) -> None:
    users = {module for module in MODULES if any(inside(target, package) for target in imports(module))}
    assert owners >= {module for module in users if not inside(module, "harness.pretrain")}


def _strings(module: str) -> list[str]:
    """String constants of a module; docstrings and examples of the command line aside."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(module))
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    constants = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)]
    texts = [node.value for node in constants if isinstance(node.value, str) and id(node) not in docstrings]
    return [text for text in texts if not text.startswith("python -m harness ")]


def test_the_harness_names_no_method_outside_its_recipes() -> None:
    name = re.compile(rf"\b({'|'.join(map(re.escape, registry()))})\b")
    found = [
        (module, text)
        for module in MODULES
        if inside(module, "harness") and module not in NAMES_METHODS
        for text in _strings(module)
        if name.search(text)
    ]
    assert not found


def test_both_sides_ignore_the_same_label() -> None:
    """The data side may not import the contract, so the value stands on both."""
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
