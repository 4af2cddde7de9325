"""The model hub: what is on this machine of it, and downloads that say beforehand what they are.

Everything goes through huggingface_hub's own client, which knows proxies, mirrors (`HF_ENDPOINT`) and tokens. What was
downloaded is in its cache (`HF_HOME`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from harness import hub_blobs
from harness.disk import require_space
from harness.errors import UserError, foreign
from harness.hub_blobs import Blob, complete, find_blob
from harness.numbers import readable_size
from harness.streams import Say
from harness.transfer import ProgressBar

GB = 10**9


@dataclass(frozen=True)
class Source:
    """Files of a repository on the hub, and what a user is told before they are downloaded.

    Attributes:
        what: what they are, such as `the weights of LLaMA-7B`.
        repo: id of the repository.
        patterns: names of the files; `*` stands for anything.
        remedy: what to do where they cannot be downloaded.
        kind: kind of the repository, `model` or `dataset`.
        size: their bytes; None if not known before the hub is asked.
        licence: their licence; None if not known before the hub is asked.
        essential: names of which the repository must have one, with `*` for anything; none for any file of `patterns`.
        revision: branch, tag or commit; None for the newest state, under which the cache finds it by name alone.
        largest: name of a file -> the most bytes that it may have; other files may have any number.
    """

    what: str
    repo: str
    patterns: tuple[str, ...]
    remedy: str
    kind: str = "model"
    size: int | None = None
    licence: str | None = None
    essential: tuple[str, ...] = ()
    revision: str | None = None
    largest: Mapping[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The page of the repository."""
        return page_of(self.repo, self.kind)

    def offer(self, size: int | None = None, licence: str | None = None) -> str:
        """Return the line that says what a download is.

        Args:
            size: its bytes, if the hub has been asked.
            licence: its licence by the hub, if the hub has been asked.
        """
        size = self.size if size is None else size
        large = "of unknown size" if size is None else readable_size(size)
        licence = self.licence or licence or "not stated"
        return f"{self.what} ({large}, licence: {licence}) from {self.address} into {constants.HF_HUB_CACHE}"

    def absent(self) -> str:
        """Return the line that says what is missing, without what to do."""
        return f"not on this machine: {self.offer()}"

    def refusal(self) -> str:
        """Return the line that says what is missing, why it cannot be downloaded, and what to do."""
        off = "downloads are switched off (--offline or HF_HUB_OFFLINE)"
        why = off if constants.HF_HUB_OFFLINE else "the model hub cannot be reached"
        return f"{self.absent()}; {why}; {self.remedy}"


def page_of(repo: str, kind: str) -> str:
    """Return the address of the page of a repository.

    Args:
        repo: id of the repository.
        kind: `model` or `dataset`.
    """
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def go_offline() -> None:
    """Use nothing but what is on this machine, in this process and in those that it starts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True


def hub_reachable(timeout_s: float = 3.0) -> bool:
    """Return whether the model hub answers, see `is_reachable`.

    A download would retry for minutes, so this is tested once before anything is downloaded.

    Args:
        timeout_s: seconds to wait for the answer.
    """
    return is_reachable(constants.ENDPOINT, timeout_s)


def is_reachable(url: str, timeout_s: float = 3.0) -> bool:
    """Return whether an address answers, directly or through the proxy that the environment names; never when offline.

    Args:
        url: the address.
        timeout_s: seconds to wait for the answer.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(url, timeout=timeout_s)
    except Exception:  # the client's errors have no public base class of their own, and any of them means no
        return False
    return True


def cached_file(repo: str, name: str, kind: str = "model", revision: str | None = None) -> Path | None:
    """Return a file of a repository from the hub's cache; None if it is not there or `repo` is no valid id."""
    try:
        found = try_to_load_from_cache(repo, name, repo_type=kind, revision=revision)
    except ValueError:
        return None
    return Path(found) if isinstance(found, str) else None


def download(source: Source, say: Say) -> list[Path]:
    """Download the files of a source that are not in the cache yet, and check all of them by the hub's hashes.

    A file comes into the cache when its hash has been compared, because later commands believe what they find there.

    Args:
        source: what to download.
        say: called with the line that says what is downloaded.

    Returns:
        The files in the cache.

    Raises:
        UserError: the hub may not be used or does not answer, refuses the files, or a file is too large or is not what
            the hub says.
    """
    if not hub_reachable():
        raise UserError(source.refusal())
    api = HfApi()
    with _explained(source):
        info: Any = api.repo_info(source.repo, repo_type=source.kind, revision=source.revision, files_metadata=True)
        if source.revision is not None:  # a branch may move between two files
            source = replace(source, revision=info.sha)
        names = _wanted(source, [file.rfilename for file in info.siblings])
        sizes = {f.rfilename: f.size or 0 for f in info.siblings if f.rfilename in names}
        _refuse_larger(source, sizes)
        absent = {name: size for name, size in sizes.items() if not _cached(source, name)}
        licence = getattr(info.card_data, "license", None) if info.card_data else None
    say(f"downloading {source.offer(sum(absent.values()), licence)}")
    with _explained(source):
        large = {name: _blob(source, name) for name, size in absent.items() if size >= hub_blobs.RESUMED_FROM}
    begun = sum(blob.partial.stat().st_size for blob in large.values() if blob and blob.partial.exists())
    remedy = "set HF_HOME to a folder on another disk"
    require_space(sum(absent.values()) - begun, Path(constants.HF_HUB_CACHE), remedy)
    with _explained(source):
        paths = []
        for name in names:
            paths.append(_fetched(source, name, large.get(name)))
        say(f"checking the hashes of {source.what}")
        verified = api.verify_repo_checksums(source.repo, repo_type=source.kind, revision=source.revision)
    for mismatch in verified.mismatches:
        path = Path(verified.verified_path, mismatch["path"])
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise _damaged(source, mismatch["path"])
    return paths


def download_small(source: Source, name: str, say: Say) -> Path:
    """Download one small file of a source, such as a config, without the others.

    Args:
        source: the source.
        name: name of the file.
        say: called with the line that says what is downloaded.

    Returns:
        The file in the cache.

    Raises:
        UserError: the hub may not be used or does not answer, refuses the file, or has none of that name.
    """
    if not hub_reachable():
        raise UserError(source.refusal())
    say(f"downloading {name} of {source.address} into {constants.HF_HUB_CACHE}")
    with _explained(source):
        try:
            return _fetched(source, name)
        except RemoteEntryNotFoundError as error:
            raise UserError(f"{source.address}: has no {name}; give another one") from error


def _cached(source: Source, name: str) -> Path | None:
    return cached_file(source.repo, name, source.kind, source.revision)


def _fetched(source: Source, name: str, blob: Blob | None = None) -> Path:
    """Return a file in the cache; download it if it is not there.

    Args:
        source: where it comes from.
        name: its name.
        blob: the place of its content, if the hub has been asked.

    Raises:
        UserError: its hash is not that of the hub.
    """
    if _cached(source, name) is None and (blob := blob or _blob(source, name)) and not complete(blob, name):
        raise _damaged(source, name)
    options: Any = {"repo_type": source.kind, "revision": source.revision, "tqdm_class": ProgressBar}
    return Path(hf_hub_download(source.repo, name, **options))


def _blob(source: Source, name: str) -> Blob | None:
    return find_blob(source.repo, source.kind, source.revision, name)


def _refuse_larger(source: Source, sizes: Mapping[str, int]) -> None:
    for name, most in source.largest.items():
        if sizes.get(name, 0) > most:
            raise UserError(
                f"{source.address}: {name}: has {readable_size(sizes[name])}, more than the {readable_size(most)} that "
                f"such a file may have; {source.remedy}"
            )


def _damaged(source: Source, name: str) -> UserError:
    return UserError(
        f"{source.address}: {name} arrived damaged (its hash is not the hub's) and was removed; run the same command "
        "again"
    )


def _wanted(source: Source, names: Sequence[str]) -> list[str]:
    """Return the names that the source's patterns select.

    Raises:
        UserError: there is none, or no essential one.
    """
    wanted = _matching(names, source.patterns)
    if (wanted and not source.essential) or _matching(names, source.essential):
        return wanted
    lacking = f"{source.address}: has none of {', '.join(source.essential or source.patterns)}"
    pickled = _matching(names, ("*.bin", "*.pt", "*.pth"))
    but = f" (its {pickled[0]} may be a pickle, which can run code)" if source.essential and pickled else ""
    raise UserError(f"{lacking}{but}; {source.remedy}")


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turn the client's errors into one line.

    Raises:
        UserError: the body failed.
    """
    with foreign(f"{source.address}: cannot be downloaded", "run the same command again; it goes on where it stopped"):
        try:
            yield
        except GatedRepoError as error:
            raise UserError(
                f"{source.address}: access is restricted; ask for it on that page, then log in with `hf auth login` or "
                "set HF_TOKEN, and run the same command again"
            ) from error
        except HFValidationError as error:
            raise UserError(
                f"{source.repo}: is no folder on this machine and no name of a repository; correct it"
            ) from error
        except RevisionNotFoundError as error:
            raise UserError(
                f"{source.address}: has no revision {source.revision!r}; give a branch, a tag or a commit of it"
            ) from error
        except RepositoryNotFoundError as error:
            raise UserError(
                f"{source.address}: there is no such repository, or it is private; correct the name, or log in with "
                "`hf auth login`"
            ) from error
