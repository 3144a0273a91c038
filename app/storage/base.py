"""The artifact store: bytes under keys ``jobs/<id>/<fence>/<path>``. The database says which are published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One file of a bundle as stored: its path in the bundle, size in bytes, and sha256 in hex."""

    path: str
    size: int
    sha256: str


class ArtifactMissing(Exception):
    """The store holds nothing under a key."""


class StoreUnavailable(Exception):
    """The store cannot be reached, or does not do its work, for now."""


class ArtifactStore(Protocol):
    """The interface of stores. Keys are relative POSIX paths. OSError and `StoreUnavailable` mean: perhaps later."""

    def put(self, key: str, source: Path) -> tuple[int, str]:
        """Store a file whole or not at all. Return its size and sha256."""
        ...

    def open(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Stream the bytes ``[start, stop)``. Raises `ArtifactMissing` at once, not on the first chunk."""
        ...

    def keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """List keys under a prefix, in an order of the store's own, from behind a key (``""``: from the start).

        What an interrupted `put` has left behind is listed too.
        """
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything under a prefix; nothing there is no error."""
        ...

    def check(self) -> None:
        """Raise OSError or `StoreUnavailable` where the store cannot be used."""
        ...


def parts_of(key: str) -> tuple[str, ...]:
    """Split a key into its parts.

    Raises:
        ArtifactMissing: It is no key. Keys come from our own code, but part of a key may have come from a URL.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\0" in key:
        raise ArtifactMissing(key)
    return parts
