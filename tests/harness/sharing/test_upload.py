"""Uploads reach the hub whole, or say in one line why they did not."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.sharing import upload
from harness.sharing.upload import Upload, send
from tests.standin_hub import Hub, Repository


def some(**files: bytes) -> Upload:
    return Upload("me/some", "model", "Add some", files or {"a.txt": b"a", "b.safetensors": b"b" * 5000})


def test_all_files_are_one_commit(hub: Hub) -> None:
    send(some())
    repository = hub.models["me/some"]
    assert repository.files() == {"a.txt": b"a", "b.safetensors": b"b" * 5000}
    assert len([request for request in hub.requests if "/commit/" in request]) == 1
    assert set(hub.large.values()) == {b"b" * 5000}
    send(some(c=b"c"))
    assert set(repository.files()) == {"a.txt", "b.safetensors", "c"}


def test_files_that_are_gone_are_removed_where_the_upload_owns_them(hub: Hub) -> None:
    files = {"README.md": b"# x", "records/a.json": b"a", "records/b.json": b"b"}
    send(Upload("me/some", "dataset", "first", files, owned=("records/",)))
    (hub.datasets["me/some"].folder / "mine.txt").write_text("kept")
    send(Upload("me/some", "dataset", "second", {"records/b.json": b"c"}, owned=("records/",)))
    assert hub.datasets["me/some"].files() == {"README.md": b"# x", "mine.txt": b"kept", "records/b.json": b"c"}


def test_a_commit_that_fails_leaves_nothing(hub: Hub) -> None:
    hub.refuses_commits = True
    with pytest.raises(UserError, match=r"me/some: cannot be uploaded .*; run the same command again"):
        send(some())
    assert hub.models["me/some"].files() == {}
    hub.refuses_commits = False
    send(some())
    assert hub.models["me/some"].files()


def test_who_may_upload(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"they/x: the hub does not let this access token write there; .* they, or"):
        send(Upload("they/x", "model", "m", {"a": b"a"}))
    hub.models["they/x"] = Repository(Path())
    with pytest.raises(UserError, match="does not let this access token write there"):
        send(Upload("they/x", "model", "m", {"a": b"a"}))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="does not let this access token write there"):
        send(some())
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    with pytest.raises(UserError, match=r"needs an access token that may write; log in with `hf auth login`, or set"):
        send(some())
    assert hub.requests == []


def test_nothing_private_goes_to_a_public_repository(hub: Hub) -> None:
    send(some())
    before = hub.models["me/some"].commit
    with pytest.raises(UserError, match="me/some: is public; make it private"):
        send(some(secret=b"s"), private=True)
    assert hub.models["me/some"].commit == before


def test_the_licence_is_that_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["license"].lower() == upload.LICENCE and project["name"] == upload.LIBRARY
