"""A stand-in for the model hub on 127.0.0.1, and an HTTP proxy in front of it.

The hub speaks as much of the HTTP API of huggingface.co as huggingface_hub uses to download a repository, and, by
`tests/standin_uploads.py`, to upload to one without Xet. Its files are those of folders on disk.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from huggingface_hub.utils.sha import git_hash


@dataclass
class Repository:
    """One repository.

    Attributes:
        folder: its files.
        gated: whether only users with a token may read its files.
        licence: what its card says.
        private: whether it is private, which is told and not kept.
        history: commit before the newest one -> name and content of its files.
    """

    folder: Path
    gated: bool = False
    licence: str | None = None
    private: bool = False
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """Return the content of each file by its name."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    @property
    def commit(self) -> str:
        """A commit that changes with the content."""
        return commit_of(self.files())

    def at(self, revision: str) -> dict[str, bytes] | None:
        """Return the files of a revision; None if there is no such revision."""
        return self.files() if revision in ("main", self.commit) else self.history.get(revision)


def commit_of(files: Mapping[str, bytes]) -> str:
    """Return the commit whose files these are."""
    return hashlib.sha1(b"".join(files.values())).hexdigest()


@dataclass
class Hub:
    """The stand-in and what it was asked.

    Attributes:
        address: its URL, the value of HF_ENDPOINT.
        models, datasets: id -> repository.
        requests: method and path of each request so far.
        cut_after: name of a file -> bytes after which the next download of it breaks off.
        stall_after: name of a file -> bytes after which the next download of it waits for `release`.
        damaged: names of files that arrive with one wrong byte.
        named_by_git: whether files are said to be in git, not in git-lfs.
        ranges: the Range header of each request that has one.
        stalled: set while a download waits.
        release: lets it go on.
        storage: where new repositories are made.
        owners: names that may upload.
        token: the access token that they have.
        large: SHA-256 -> content of each large file that was uploaded.
        refuses_commits: whether commits fail.
    """

    address: str = ""
    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    cut_after: dict[str, int] = field(default_factory=dict)
    stall_after: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    named_by_git: bool = False
    ranges: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    storage: Path | None = None
    owners: set[str] = field(default_factory=lambda: {"me"})
    token: str = "hf_secret"
    large: dict[str, bytes] = field(default_factory=dict)
    refuses_commits: bool = False

    def downloads(self) -> list[str]:
        """Return the names of the files that were sent so far, in whole or in part."""
        return [path.rpartition("/resolve/")[2].partition("/")[2] for path in self.requests if path.startswith("GET ")
                and "/resolve/" in path]  # fmt: skip


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.receive()

        def do_PUT(self) -> None:
            self.receive()

        def receive(self) -> None:
            from tests.standin_uploads import receive

            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            status, content, headers = receive(hub, path, self.body(), token)
            body = json.dumps(content).encode()
            self.send(status, body, {"Content-Type": "application/json", **headers})

        def body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def answer(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}{' (token)' if self.headers.get('authorization') else ''}")
            api = path.startswith("/api/")
            parts = path.removeprefix("/api/").strip("/").split("/")
            kind = parts.pop(0) if parts[0] in ("datasets", "models") else "models"
            repository = getattr(hub, kind).get("/".join(parts[:2]))
            files = None if repository is None else repository.at(parts[3] if len(parts) > 3 else "main")
            if path == "/":
                self.send(200, b"hub")
            elif repository is None:
                self.send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
            elif files is None:
                self.send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
            elif api and len(parts) > 2 and parts[2] == "tree":
                self.send_json(tree(files))
            elif api:
                self.send_json(about("/".join(parts[:2]), repository, files))
            else:
                self.send_file(repository, files, "/".join(parts[4:]))

        def send_json(self, content: object) -> None:
            self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def send_file(self, repository: Repository, files: Mapping[str, bytes], name: str) -> None:
            if repository.gated and not self.headers.get("authorization"):
                headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "access is restricted"}
                return self.send(401, b"", headers)
            content = files.get(name)
            if content is None:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
            etag = git_hash(content) if hub.named_by_git else hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(files)}
            if name in hub.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            status = 200
            if given := self.headers.get("Range"):
                hub.ranges.append(given)
                start = int(given.removeprefix("bytes=").partition("-")[0])
                if start >= len(content):
                    return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status, content = 206, content[start:]
            cut = stall = None
            if self.command == "GET":
                cut, stall = hub.cut_after.pop(name, None), hub.stall_after.pop(name, None)
            self.send(status, content, headers, stall if cut is None else cut)
            if stall is not None:
                self.wfile.flush()
                hub.stalled.set()
                hub.release.wait(timeout=60)
            return None

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = cut is not None

    return Handler


def about(repo: str, repository: Repository, files: Mapping[str, bytes]) -> dict[str, object]:
    """Return what the hub says about a repository with these files."""
    return {
        "id": repo,
        "_id": "0",
        "modelId": repo,
        "sha": commit_of(files),
        "gated": "manual" if repository.gated else False,
        "private": repository.private,
        "cardData": {"license": repository.licence} if repository.licence else {},
        "tags": [],
        "siblings": [{"rfilename": name, "size": len(content)} for name, content in files.items()],
    }


def tree(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """Return what the hub says about the files of a repository, each as if it were in git-lfs."""
    return [
        {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
            "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100},
        }
        for name, content in files.items()
    ]


def _proxy_handler(seen: list[str], hosts: dict[str, str]) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.forward()

        def do_GET(self) -> None:
            self.forward()

        def forward(self) -> None:
            seen.append(self.path)
            wanted = {key: self.headers[key] for key in ("Range", "Authorization") if key in self.headers}
            # The proxy of the environment is this one: it must not call itself.
            opener = build_opener(ProxyHandler({}))
            asked = urlsplit(self.path)
            target = f"{hosts[asked.netloc]}{asked.path}?{asked.query}"
            with opener.open(Request(target, headers=wanted, method=self.command)) as response:
                body = response.read()
                self.send_response(response.status)
                for key, value in response.headers.items():
                    if key.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

    return Proxy


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_on_this_machine() -> Iterator[Hub]:
    """Serve a hub without repositories until the body ends."""
    hub = Hub()
    with _served(_handler(hub)) as address:
        hub.address = address
        yield hub


@contextmanager
def proxy_on_this_machine(hosts: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serve an HTTP proxy until the body ends.

    Args:
        hosts: name of each host that only the proxy can reach -> the address where it is.

    Yields:
        The proxy's address, and the list of the addresses that it has been asked for.
    """
    seen: list[str] = []
    with _served(_proxy_handler(seen, hosts)) as address:
        yield address, seen


def use(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client in this process use a hub and a cache."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    close_session()


TEXTS = ("question", "hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
"""The fields of a ScienceQA row that are text."""


def save_parquet(splits: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> Path:
    """Save rows as the hub has ScienceQA: one parquet file per split.

    Args:
        splits: train, validation and test -> rows, whose image is None or `{"bytes": ..., "path": None}`.
        folder: where to save.
    """
    import datasets

    texts = {name: datasets.Value("string") for name in TEXTS}
    more = {"choices": datasets.List(datasets.Value("string")), "answer": datasets.Value("int8")}
    features = datasets.Features({**texts, **more, "image": datasets.Image()})
    for split, rows in splits.items():
        target = folder / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list([dict(row) for row in rows], features=features).to_parquet(target)
    return folder
