"""A folder of kept pieces within a budget of bytes: what was least recently used makes room."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pruning_core.kept.piece import Damaged, Json, Piece, name_of, read_piece, write_piece

_SUFFIX, _PARTIAL = ".safetensors", ".partial"
# Seconds after which a partial file is one that a killed process has left: writing takes a few.
_ABANDONED_S = 3600.0


class KeptFolder:
    """Pieces in a folder, a file each. Several processes may use it at once: files appear whole, and are never changed.

    A folder that is full, read-only or gone costs what would have been kept, and never a run.
    """

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        """Name the folder, which need not exist.

        Args:
            folder: The folder.
            most_bytes: How many bytes all of its files may have; None: as many as there are.
        """
        self.folder, self._most = folder, most_bytes

    def read(self, key: Mapping[str, Json]) -> Piece | None:
        """Return the piece for a key; None if there is none.

        Raises:
            Damaged: There is one that cannot be used; its file is deleted.
        """
        path = self._path(key)
        try:
            found = read_piece(path, key)
        except Damaged:
            with suppress(OSError):
                path.unlink()
            raise
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return found

    def write(self, key: Mapping[str, Json], piece: Piece) -> bool:
        """Keep a piece, and make room for it. Return whether it was kept."""
        if self._most is not None and piece.bytes > self._most:
            return False
        path = self._path(key)
        partial = path.with_suffix(f".{os.getpid()}{_PARTIAL}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_piece(partial, key, piece)
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            return False
        self._make_room(path)
        return path.exists()

    def _path(self, key: Mapping[str, Json]) -> Path:
        return self.folder / f"{name_of(key)}{_SUFFIX}"

    def _make_room(self, newest: Path) -> None:
        """Delete abandoned files, and pieces in the order of their last use until the others are within the budget."""
        oldest: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                found = path.stat()
                if path.suffix == _PARTIAL and time.time() - found.st_mtime > _ABANDONED_S:
                    path.unlink()
                elif path.suffix == _SUFFIX:
                    oldest.append((found.st_mtime, found.st_size, path))
        over = 0 if self._most is None else sum(size for _, size, _ in oldest) - self._most
        for _, size, path in sorted(oldest, key=lambda own: (own[2] == newest, own[0])):
            if over <= 0:
                break
            with suppress(OSError):
                path.unlink()
                over -= size
