"""A Hub that is written to, for the tests, on loopback: the routes by which huggingface_hub makes repositories and commits."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.loopback import loopback

LARGE = 200_000  # above, a file is kept outside of git, as the Hub does from 10 MB on
TOKEN = "hf_of_the_tests"
READER = "hf_that_only_reads"


@dataclass
class Repository:
    """What one repository holds: of each branch the files; who sees it; and how many commits there were."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b"*.bin lfs\n"}})
    messages: list[str] = field(default_factory=list)


@dataclass
class WritableHub:
    """A running Hub.

    Attributes:
        url: Its address, for ``HF_ENDPOINT``.
        owner: The organization whose repositories `TOKEN` may write.
        uploads: The digest of each large file that was sent, in order.
        failing: Path of a file in commits and uploads that the Hub fails at.
    """

    url: str
    owner: str = "me"
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    failing: bool = False


@contextmanager
def writable_hub() -> Iterator[WritableHub]:
    """Run an empty Hub."""
    with loopback(_Handler) as server:
        server.hub = WritableHub(f"http://127.0.0.1:{server.server_port}")
        yield server.hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> WritableHub:
        return self.server.hub

    def do_GET(self) -> None:
        parts = self._parts()
        if self._refused(writing=False) or parts[:2] != ["api", "models"]:
            return
        repository = self.hub.repositories.get("/".join(parts[2:4]))
        if repository is None:
            self._send(404, {}, {"X-Error-Code": "RepoNotFound"})
            return
        branch = parts[5] if parts[4:5] == ["revision"] else "main"
        if branch not in repository.branches:
            self._send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            return
        files = repository.branches[branch]
        answer = {"id": "/".join(parts[2:4]), "sha": _commit_of(files), "private": repository.private}
        self._send(200, {**answer, "siblings": [_sibling(*one) for one in files.items()]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        match parts:
            case ["api", "validate-yaml"]:
                self._validate(json.loads(body))
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "models", owner, name, "branch", branch] if not self._refused(owner):
                repository = self.hub.repositories[f"{owner}/{name}"]
                repository.branches[branch] = dict(repository.branches["main"])
                self._send(200, {})
            case ["api", "models", owner, name, "preupload", branch] if not self._refused(owner):
                files = self.hub.repositories[f"{owner}/{name}"].branches[branch]
                self._send(200, {"files": [_mode(one, files) for one in json.loads(body)["files"]]})
            case [owner, _git, "info", "lfs", "objects", "batch"] if not self._refused(owner):
                self._send(200, {"transfer": "basic", "objects": [self._batch(one) for one in json.loads(body)["objects"]]})
            case ["api", "models", owner, name, "commit", branch] if not self._refused(owner):
                self._commit(f"{owner}/{name}", branch, [json.loads(line) for line in body.splitlines()])
            case _:
                pass  # refused, and answered

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self._parts()[-1]
        if hashlib.sha256(content).hexdigest() != digest:
            self._send(400, {"error": "another digest"})
            return
        self.hub.large[digest] = content
        self.hub.uploads.append(digest)
        self._send(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        owner, name = asked["organization"], asked["name"]
        if self._refused(owner):
            return
        self.hub.repositories.setdefault(f"{owner}/{name}", Repository(asked["visibility"] == "private"))
        self._send(200, {"url": f"{self.hub.url}/{owner}/{name}"})

    def _validate(self, asked: dict[str, Any]) -> None:
        import yaml

        front = asked["content"].split("---\n")[1] if asked["content"].startswith("---\n") else ""
        try:
            yaml.safe_load(front)
        except yaml.YAMLError as error:
            self._send(400, {"errors": [{"message": str(error)}], "warnings": []})
            return
        self._send(200, {"errors": [], "warnings": []})

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        there = asked["oid"] in self.hub.large
        return asked if there else {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        if self.hub.failing:
            self._send(500, {"error": "out of order"})
            return
        repository = self.hub.repositories[name]
        files = repository.branches[branch]
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    repository.messages.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
        sha = _commit_of(files)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def _refused(self, owner: str | None = None, *, writing: bool = True) -> bool:
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if shown not in (TOKEN, READER):
            self._send(401, {"error": "Invalid credentials in Authorization header"})
            return True
        if writing and (shown == READER or owner != self.hub.owner):
            self._send(403, {"error": "Forbidden"})
            return True
        return False

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Stay quiet."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1("".join(f"{name} {_oid(files[name])}\n" for name in sorted(files)).encode()).hexdigest()


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    known = {"rfilename": path, "size": len(content), "blobId": _oid(content)}
    if len(content) > LARGE:
        known["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return known


def _mode(asked: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    large = asked["size"] > LARGE
    there = files.get(asked["path"])
    oid = None if there is None else hashlib.sha256(there).hexdigest() if large else _oid(there)
    return {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
