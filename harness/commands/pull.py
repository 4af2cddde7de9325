"""The subcommand `pull`: download an adapter from the model hub."""

import shlex
from pathlib import Path

from harness.escape import visible
from harness.sharing.adapters import pull_adapter
from harness.streams import say_on_stderr


def pull_text(repo: str, out: Path | None, revision: str | None) -> str:
    """Download an adapter, and return what it is and what to do next.

    Args:
        repo: id of the repository, `OWNER/NAME`.
        out: a new folder for it; None takes the name of the repository, below the current folder.
        revision: branch, tag or commit; None for the branch `main`.

    Raises:
        UserError: see `harness.sharing.adapters.pull_adapter`.
    """
    adapter = pull_adapter(repo, out, revision, say_on_stderr)
    backbone = adapter.backbone
    parts = f" ({backbone.llm} and {backbone.clip})" if backbone.llm and backbone.clip else ""
    what = f"{adapter.folder}: an adapter of {adapter.method.name} for {adapter.task} on {backbone.model}{parts}"
    ask = f"python -m harness predict --adapter {shlex.quote(str(adapter.folder))} --image FILE --question '...'"
    return f"{visible(what)}\nAsk it: {visible(ask)}"
