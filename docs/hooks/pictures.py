"""Some questions of the small world with their pictures, drawn when the site is built.

A page asks for them with the line `<!-- pictures -->`. MkDocs calls the function named `on_...`.
"""

import base64
import html
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

MARK = "<!-- pictures -->"
SIZES = (0, 0, 200)
"""Problems that are drawn in train, val and test; one picture of each skill among them is shown."""


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the pictures in the place of a page that asks for them."""
    if MARK not in markdown:
        return markdown
    root = str(Path(config.config_file_path).parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    return markdown.replace(MARK, gallery())


def gallery() -> str:
    """Return the first picture of each skill with its question, as a list that the theme shows as cards."""
    from harness.data.mini.build import build_mini

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build_mini(root, sizes=SIZES)
        problems, scenes = (
            json.loads((root / name).read_text(encoding="utf-8")) for name in ("problems.json", "scenes.json")
        )
        shown = {record["skill"]: qid for qid, record in reversed(problems.items()) if record["image"]}
        cards = [
            _card(problems[qid], scenes[qid], root / "images" / problems[qid]["split"] / qid / "image.png")
            for qid in sorted(shown.values(), key=int)
        ]
    return "\n".join(['<div class="grid cards" markdown>\n', *cards, "</div>"])


def _card(record: dict[str, Any], scene: str, picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    options = ", ".join(
        f"**{text}**" if number == record["answer"] else text for number, text in enumerate(record["choices"])
    )
    hint = f" (hint: {record['hint']})" if record["hint"] else ""
    image = f'![{html.escape(scene)}](data:image/png;base64,{data}){{ width="160" style="image-rendering: pixelated" }}'
    return f"-   {image}\n\n    {record['category']}, *{record['skill']}*{hint}\n\n    {record['question']} {options}\n"
