"""A Hub for the tests, on loopback: models and data sets in folders, served as huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.loopback import loopback

COMMIT = "c" * 40
Repositories = Mapping[tuple[str, str], Path]


@dataclass
class Hub:
    """A running Hub.

    Attributes:
        url: Its address, for ``HF_ENDPOINT``.
        private: Token of each repository that needs one.
        tokens: The tokens that were shown, in order; empty for none.
    """

    url: str
    repositories: Repositories
    private: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)


@contextmanager
def hub(repositories: Repositories) -> Iterator[Hub]:
    """Serve folders as repositories.

    Args:
        repositories: Folder of each, by kind (``model``, ``dataset``) and id.
    """
    with loopback(_Handler) as server:
        server.hub = Hub(f"http://127.0.0.1:{server.server_port}", repositories)
        yield server.hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        own: Hub = self.server.hub
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        own.tokens.append(shown)
        path = unquote(urlsplit(self.path).path).strip("/")
        for (kind, name), folder in own.repositories.items():
            api, files = f"api/{kind}s/{name}", f"{'datasets/' if kind == 'dataset' else ''}{name}/resolve/"
            if not (path + "/").startswith((f"{api}/", files)):
                continue
            if own.private.get(name, shown) != shown:
                break
            if path.startswith(files):
                self._file(folder / path.removeprefix(files).partition("/")[2])
            elif "/tree/" in path:
                self._json([_entry(file, folder) for file in _files(folder)])
            else:
                siblings = [{"rfilename": _name(one, folder)} for one in _files(folder)]
                self._json({"id": name, "sha": COMMIT, "siblings": siblings})
            return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = path.read_bytes()
        self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Stay quiet."""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _entry(path: Path, folder: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"type": "file", "path": _name(path, folder), "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
