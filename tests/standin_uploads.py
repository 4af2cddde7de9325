"""The part of the stand-in hub that takes uploads: it makes repositories, keeps large files, and commits."""

import base64
import hashlib
import json
from typing import Any

from huggingface_hub import ModelCard

from tests.standin_hub import Hub, Repository

Reply = tuple[int, dict[str, Any], dict[str, str]]
"""Status, JSON and headers of an answer."""
LARGE = (".safetensors", ".parquet")
"""The ends of the names of files that go to git-lfs."""


def receive(hub: Hub, path: str, body: bytes, token: str) -> Reply:
    """Answer a POST or PUT request.

    Args:
        hub: the hub, which changes.
        path: path of the request.
        body: its content.
        token: its access token, empty if it has none.
    """
    if path.startswith("/large/"):
        hub.large[path.removeprefix("/large/")] = body
        return 200, {}, {}
    if token != hub.token:
        return 401, {"error": "Invalid username or password."}, {}
    if path == "/api/validate-yaml":
        ModelCard(json.loads(body)["content"])
        return 200, {"errors": [], "warnings": []}, {}
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    parts = path.removeprefix("/api").strip("/").split("/")
    kind = parts.pop(0) if parts[0] in ("datasets", "models") else "models"
    owner, name, action = parts[0], parts[1].removesuffix(".git"), parts[2]
    repository = getattr(hub, kind).get(f"{owner}/{name}")
    if repository is None:
        return 404, {}, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"}
    if owner not in hub.owners:
        return 403, {"error": "You do not have write access to this repository."}, {}
    if action == "info":
        return _large_files(hub, json.loads(body))
    if action == "preupload":
        return _modes(json.loads(body))
    assert action == "commit", path
    return _commit(hub, repository, f"{hub.address}/{owner}/{name}", body)


def _create(hub: Hub, asked: dict[str, Any]) -> Reply:
    kind = "datasets" if asked["type"] == "dataset" else "models"
    repo = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] not in hub.owners:
        return 403, {"error": f"You don't have the rights to create a model under {asked['organization']}"}, {}
    url = f"{hub.address}/{'datasets/' if kind == 'datasets' else ''}{repo}"
    if repo in getattr(hub, kind):
        return 409, {"error": "You already created this repo", "url": url}, {}
    assert hub.storage is not None, "the test gives the hub no folder for new repositories"
    folder = hub.storage / kind / repo
    folder.mkdir(parents=True)
    getattr(hub, kind)[repo] = Repository(folder, private=asked.get("visibility") == "private")
    return 200, {"url": url}, {}


def _modes(asked: dict[str, Any]) -> Reply:
    names = [file["path"] for file in asked["files"]]
    modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in names}
    return 200, {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]}, {}


def _large_files(hub: Hub, asked: dict[str, Any]) -> Reply:
    files = [
        {"oid": f["oid"], "size": f["size"], "actions": {"upload": {"href": f"{hub.address}/large/{f['oid']}"}}}
        for f in asked["objects"]
    ]
    return 200, {"transfer": "basic", "objects": files}, {"Content-Type": "application/vnd.git-lfs+json"}


def _commit(hub: Hub, repository: Repository, address: str, body: bytes) -> Reply:
    """Write all files of a commit, or none of them."""
    changed: dict[str, bytes | None] = {}
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            changed[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            content = hub.large[value["oid"]]
            assert hashlib.sha256(content).hexdigest() == value["oid"] and len(content) == value["size"]
            changed[value["path"]] = content
        elif item["key"] == "deletedFile":
            changed[value["path"]] = None
        else:
            assert item["key"] == "header", item["key"]
    if hub.refuses_commits:
        return 500, {"error": "Internal error"}, {}
    repository.history[repository.commit] = repository.files()
    for name, content in changed.items():
        path = repository.folder / name
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return 200, {"commitUrl": f"{address}/commit/{repository.commit}", "commitOid": repository.commit}, {}
