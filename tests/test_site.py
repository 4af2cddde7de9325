"""The site of the documents: files of the repository that pages link to become pages. tox builds the whole of it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from harness.config.recipe import TrainRecipe

ROOT = Path(__file__).parents[1]


def hook(name: str) -> ModuleType:
    """Load a module of docs/hooks/, as MkDocs does."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs/hooks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


repository = hook("repository")


@pytest.mark.parametrize(
    ("uri", "text", "wanted"),
    [
        ("gpu.md", "see [Cost](cost.md#how-cost-is-measured)", "see [Cost](cost.md#how-cost-is-measured)"),
        ("gpu.md", "[README](../README.md)", "[README](repository/README.md)"),
        ("gpu.md", "[recipes](../harness/config/recipes.py)", "[recipes](repository/harness/config/recipes.py.md)"),
        ("repository/README.md", "[Cost](docs/cost.md), [MIT](LICENSE)", "[Cost](../cost.md), [MIT](LICENSE.md)"),
        ("repository/results/README.md", "[below](#fields)", "[below](#fields)"),
        ("gpu.md", "[a page](https://example.org/a.md)", "[a page](https://example.org/a.md)"),
        (
            "gpu.md",
            "`[x](../README.md)`\n\n```sh\n[x](../README.md)\n```",
            "`[x](../README.md)`\n\n```sh\n[x](../README.md)\n```",
        ),
    ],
)
def test_links_to_files_become_links_to_pages(uri: str, text: str, wanted: str) -> None:
    assert repository.relinked(text, uri) == wanted


def test_the_files_that_a_document_links_to_are_found() -> None:
    text = "[a](../README.md#top), [b](cost.md), [c](https://example.org), [d](#here) and `[e](e.md)`"
    assert list(repository.linked("docs/gpu.md", text)) == ["README.md", "docs/cost.md"]


def test_a_listing_is_one_block_of_code_whatever_the_file_contains() -> None:
    page = repository.listing("methods/example.py", 'TEXT = """\n```sh\n[x](../README.md)\n```\n"""\n')
    assert page.startswith("# methods/example.py\n\n````python\nTEXT") and page.endswith('\n"""\n````\n')
    assert repository.relinked(page, "repository/methods/example.py.md") == page


def test_the_navigation_names_files_that_exist() -> None:
    def leaves(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = list(entry.values()) if isinstance(entry, dict) else entry
        return [leaf for part in inner for leaf in leaves(part)]  # type: ignore[union-attr]  # a list of entries

    pages = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    prefix = repository.OUTSIDE
    files = [page.removeprefix(prefix) if page.startswith(prefix) else f"docs/{page}" for page in pages]
    assert files and not [file for file in files if not (ROOT / file).is_file()]
    assert {file for file in files if file.startswith("docs/")} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")
    }


def test_the_output_of_a_command_stands_in_the_page_that_asks_for_it() -> None:
    page = "Before\n\n```sh\npython -m harness audit --results nothing-here\n```\n\n<!-- prints -->\n\nAfter\n"
    text = hook("printed").with_output(page, ROOT)
    assert text.startswith("Before\n\n```sh\npython -m harness audit") and text.endswith("\n\nAfter\n")
    assert "Records with accuracies: 0." in text and "<!--" not in text


def test_a_command_that_fails_ends_the_build() -> None:
    page = "```sh\npython -m harness table --table 9\n```\n\n<!-- prints -->\n"
    with pytest.raises(RuntimeError, match=r"`python -m harness table --table 9` failed: error: --table 9"):
        hook("printed").with_output(page, ROOT)


def test_the_pictures_show_each_skill_once_with_the_right_option_marked() -> None:
    cards = hook("pictures").gallery().split("-   ![")[1:]
    skills = [re.search(r"\*([^*]+)\*", card) for card in cards]
    assert len({skill[1] for skill in skills if skill}) == len(cards) > 5
    for card in cards:
        assert "](data:image/png;base64,iVBOR" in card
        assert len(re.findall(r"\*\*[^*]+\*\*", card)) == 1


def test_the_settings_of_a_class_become_a_table() -> None:
    lines = hook("settings").table("harness.config.recipe.TrainRecipe", ROOT).splitlines()
    names = [re.match(r"\| `(\w+)` \|", line) for line in lines[2:]]
    assert [name[1] for name in names if name] == list(TrainRecipe.model_fields)
    for line, field in zip(lines[2:], TrainRecipe.model_fields.values(), strict=True):
        assert line.endswith(f" | {field.description} |")


def test_a_class_without_settings_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^methods\.memvp\.MemVPConfig: is no class with fields"):
        hook("settings").table("methods.memvp.MemVPConfig", ROOT)
