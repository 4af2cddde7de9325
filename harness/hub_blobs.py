"""The contents of files in the cache of the hub's client, completed where an earlier process stopped."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported when it is asked for

from harness.locks import FOREVER, acquire
from harness.transfer import complete_file

RESUMED_FROM = 10**7
"""Bytes from which on a file goes on where an earlier process stopped. Smaller ones begin anew."""
_SHA256, _GIT_SHA1 = 64, 40
"""Digits of the hashes by which the hub names contents: of a file in git-lfs, and of one in git."""


@dataclass(frozen=True)
class Blob:
    """The place of a file's content in the cache.

    Attributes:
        url: its address on the hub.
        size: its bytes; None if the hub does not say.
        path: where the client looks for it.
        partial: its first bytes, which an earlier process left, if it exists.
    """

    url: str
    size: int | None
    path: Path
    partial: Path


def find_blob(repo: str, kind: str, revision: str | None, name: str) -> Blob | None:
    """Ask the hub for a file and return the place of its content in the cache.

    Args:
        repo: id of the repository.
        kind: kind of the repository, `model` or `dataset`.
        revision: branch, tag or commit; None for the main branch.
        name: name of the file.

    Returns:
        The place, or None if the hub does not name the content.
    """
    url = hf_hub_url(repo, name, repo_type=kind, revision=revision)
    about = get_hf_file_metadata(url)
    if not about.etag:
        return None
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind), "blobs")
    return Blob(url, about.size, blobs / about.etag, blobs / f"{about.etag}.partial")


def complete(blob: Blob, name: str) -> bool:
    """Download a file's content to its place in the cache, beginning with what an earlier process left.

    The client itself goes on after a broken connection, but not after its process has ended, and compares no hash. It
    finds the content that this leaves and downloads nothing.

    Args:
        blob: the place.
        name: name of the file, for the progress bar.

    Returns:
        Whether the content has the hash of its name. If not, it is removed.

    Raises:
        UserError: the cache cannot be locked.
    """
    blob.path.parent.mkdir(parents=True, exist_ok=True)
    lock = acquire(Path(f"{blob.path}.lock"), FOREVER, "set HF_HOME to a folder on another file system")
    assert lock is not None, "it waits for ever"
    with lock:
        if blob.path.exists():
            return True
        if (blob.size or 0) < RESUMED_FROM:
            blob.partial.unlink(missing_ok=True)
        complete_file(blob.url, blob.partial, blob.size, name, build_hf_headers())
        if _is_damaged(blob):
            blob.partial.unlink()
            return False
        blob.partial.replace(blob.path)
    return True


def _is_damaged(blob: Blob) -> bool:
    """Return whether the content that arrived has another hash than its name; false if the name is no hash."""
    # git hashes the length before the content. The client's `git_hash` would read the whole file into memory.
    git = hashlib.sha1(f"blob {blob.partial.stat().st_size}\0".encode(), usedforsecurity=False)
    new_hash = {_SHA256: hashlib.sha256, _GIT_SHA1: lambda: git}.get(len(blob.path.name))
    if new_hash is None:
        return False
    with open(blob.partial, "rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest() != blob.path.name
