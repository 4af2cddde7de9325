"""Uploads to the model hub. All files go there in one commit, so nobody sees half of an upload."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported when it is asked for

from harness.errors import UserError, foreign
from harness.hub import hub_reachable, page_of
from harness.numbers import readable_size

CARD = "README.md"
"""The name of the card of a repository."""
LIBRARY = "peft-vl-bench"
"""What cards call this project."""
LICENCE = "apache-2.0"
"""The licence of this project, as the hub writes it."""
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Upload:
    """What is to be in a repository.

    Attributes:
        repo: id of the repository, `OWNER/NAME`.
        kind: `model` or `dataset`.
        message: message of the commit.
        files: name -> content, or the file that has it.
        owned: beginnings of names. Files of the repository whose name begins with one of them and that are not
            uploaded are removed.
    """

    repo: str
    kind: str
    message: str
    files: Mapping[str, bytes | Path]
    owned: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The page of the repository."""
        return page_of(self.repo, self.kind)

    def listing(self) -> list[str]:
        """Return one line per file: its name and size."""
        sizes = {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}
        return [f"{name} ({readable_size(size)})" for name, size in sizes.items()]


def repository_id(text: str, where: str) -> str:
    """Return the id of a repository that a user gave.

    Args:
        text: what the user gave.
        where: the option or argument in which it was.

    Raises:
        UserError: it is not of the form `OWNER/NAME`.
    """
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise UserError(f"{where} {text}: is no name of a repository; give OWNER/NAME") from error
    if "/" not in text:
        raise UserError(f"{where} {text}: has no owner; give OWNER/NAME with your name on the hub, or an organisation")
    return text


def require_hub(address: str, done: str) -> None:
    """Check that the model hub may be used and answers.

    Args:
        address: the page of the repository.
        done: what cannot be done without it, `uploaded` or `downloaded`.

    Raises:
        UserError: it may not be used, or does not answer.
    """
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{address}: cannot be {done}, because the hub is switched off; unset HF_HUB_OFFLINE")
    if not hub_reachable():
        raise UserError(
            f"{address}: cannot be {done}, because the hub does not answer; run the same command with a network"
        )


def send(upload: Upload, private: bool = False) -> str:
    """Make the repository if it is not there, and upload all files in one commit.

    Args:
        upload: what to upload.
        private: whether only its owner may see the repository.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub may not be used or does not answer, there is no token or it may not write there, or the
            repository is public although `private` is asked for.
    """
    where = upload.address
    with foreign(f"{where}: the access token cannot be read", _LOG_IN):
        if get_token() is None:
            raise UserError(f"{where}: needs an access token that may write; {_LOG_IN}")
    require_hub(where, "uploaded")
    api = HfApi()
    with _explained(upload):
        api.create_repo(upload.repo, repo_type=upload.kind, private=private or None, exist_ok=True)
        if private and not api.repo_info(upload.repo, repo_type=upload.kind).private:
            raise UserError(f"{where}: is public; make it private in its settings on that page, or leave out --private")
        there = api.list_repo_files(upload.repo, repo_type=upload.kind) if upload.owned else []
        stale = [name for name in there if name.startswith(upload.owned) and name not in upload.files]
        done = api.create_commit(
            upload.repo,
            [
                *(CommitOperationAdd(name, content) for name, content in upload.files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=upload.message,
            repo_type=upload.kind,
        )
    return str(done.commit_url)


@contextmanager
def _explained(upload: Upload) -> Iterator[None]:
    """Turn the client's errors into one line.

    Raises:
        UserError: the body failed.
    """
    with foreign(f"{upload.address}: cannot be uploaded", "run the same command again; nothing of it is there yet"):
        try:
            yield
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in (401, 403):
                raise
            owner = upload.repo.partition("/")[0]
            raise UserError(
                f"{upload.address}: the hub does not let this access token write there; correct the name {owner}, or "
                f"{_LOG_IN}, with a token that may write"
            ) from error
