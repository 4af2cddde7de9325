"""Files of the repository that pages link to, such as README.md or a method's source, become pages of the site.

So one relative link is right where the repository is browsed and in the site. A document becomes a page as it is. Any
other text file becomes a page that shows it. MkDocs calls the functions named `on_...`.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = "docs/"
OUTSIDE = "repository/"
"""Folder of the site for the files that are outside docs/."""
# Code, in which nothing is a link; or the target of a link.
_LINK = re.compile(r"^(`{3,}).*?^\1$|`[^`\n]+`|(?<=\]\()(?P<target>[^)\s]+)(?=\))", re.DOTALL | re.MULTILINE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:")
_LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".json": "json"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file outside docs/ to which the pages lead, directly or through such a file."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    waiting = [DOCS + file.src_uri for file in files.documentation_pages()]
    while waiting:
        source = waiting.pop()
        for path in linked(source, (root / source).read_text(encoding="utf-8")):
            if path.startswith(DOCS) or files.get_file_from_path(page_of(path)) or not (root / path).is_file():
                continue
            text = (root / path).read_text(encoding="utf-8")
            files.append(
                File.generated(config, page_of(path), content=text if is_document(path) else listing(path, text))
            )
            waiting += [path] if is_document(path) else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point the links of a page to pages of the site."""
    return relinked(markdown, page.file.src_uri)


def linked(source: str, text: str) -> Iterator[str]:
    """Return the files of the repository that a document links to, by their paths from its root.

    Args:
        source: path of the document.
        text: its text.
    """
    for match in _LINK.finditer(text):
        target = (match["target"] or "").partition("#")[0]
        if target and not _ADDRESS.match(target):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def relinked(text: str, uri: str) -> str:
    """Return the text of a page with links to pages in place of links to files of the repository.

    Args:
        text: Markdown.
        uri: path of the page in the site.
    """
    source = uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else DOCS + uri

    def replaced(match: re.Match[str]) -> str:
        target, mark, anchor = (match["target"] or "").partition("#")
        if not target or _ADDRESS.match(target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return posixpath.relpath(page_of(path), posixpath.dirname(uri) or ".") + mark + anchor

    return _LINK.sub(replaced, text)


def page_of(path: str) -> str:
    """Return the path in the site of the page that shows a file of the repository."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return OUTSIDE + (path if is_document(path) else f"{path}.md")


def is_document(path: str) -> bool:
    """Return whether a file is a page by itself."""
    return path.endswith(".md")


def listing(path: str, text: str) -> str:
    """Return a page that shows a text file."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    language = _LANGUAGES.get(posixpath.splitext(path)[1], "text")
    return f"# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"
