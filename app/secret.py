"""The server's secret: keys are hashed with it, webhook secrets are derived from it."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from app.settings import Settings

_FILE = "secret"
_BYTES = 32
_ID_LENGTH = 16


class ServerSecret:
    """Keyed hashes, each under a purpose of its own. Nothing is read before the first is asked for.

    The secret is ``COPPICE_SECRET``, or a file of the data folder that the first process to need it writes. While it is
    replaced, those of ``COPPICE_SECRET_OLD`` count too.
    """

    def __init__(self, settings: Settings) -> None:
        self._given = settings.secret.get_secret_value()
        self._old = tuple(secret.get_secret_value().encode() for secret in settings.secret_old)
        self._path = settings.data_dir / _FILE
        self._found = b""

    @property
    def is_replaced(self) -> bool:
        """Whether other secrets count too."""
        return bool(self._old)

    @property
    def id(self) -> str:
        """A name of the secret that tells nothing of it."""
        return self.digest("secret-id", "").hex()[:_ID_LENGTH]

    def digest(self, purpose: str, text: str) -> bytes:
        """Return the HMAC-SHA256 of a text."""
        self._found = self._found or self._given.encode() or _from_file(self._path)
        return _digest(self._found, purpose, text)

    def digests(self, purpose: str, text: str) -> tuple[bytes, ...]:
        """Return the digest, and behind it those by the other secrets that count."""
        return self.digest(purpose, text), *(_digest(secret, purpose, text) for secret in self._old)


def _digest(secret: bytes, purpose: str, text: str) -> bytes:
    return hmac.digest(secret, f"{purpose}\0{text}".encode(), "sha256")


def _from_file(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file appears under its name only when it is complete, and the first of two processes wins.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()
