"""A folder of kept pieces within a budget of bytes: what was least recently used makes room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pruning_core.kept.piece import Damaged, Json, Piece, name_of, read_piece, write_piece
from pruning_core.kept.room import PARTIAL, SUFFIX, make_room


class KeptFolder:
    """Pieces in a folder, a file each. Several processes may use it at once: files appear whole, and are never changed.

    A folder that is full, read-only or gone costs what would have been kept, and never a run.
    """

    def __init__(
        self, folder: Path, most_bytes: int | None = None, *, source: Path | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        """Name the folder, which need not exist.

        Args:
            folder: The folder.
            most_bytes: How many bytes all of its files may have; None: as many as there are.
            source: Another folder: what is missing here is copied from there.
            notes: What a run that uses it is to warn of.
        """
        self.folder, self._most = folder, most_bytes
        self._source, self.notes = source, notes

    def read(self, key: Mapping[str, Json]) -> Piece | None:
        """Return the piece for a key; None if there is none.

        Raises:
            Damaged: There is one that cannot be used; its file is deleted.
        """
        path = self._path(key)
        if self._source is not None and not path.exists():
            self.take(self._source / path.name)
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
        return self._put(path, lambda partial: write_piece(partial, key, piece))

    def take(self, piece: Path) -> None:
        """Copy a piece from another folder, if it is there and there is room for it. It is checked when it is read."""
        path = self.folder / piece.name
        with suppress(OSError):
            if not path.exists() and (self._most is None or piece.stat().st_size <= self._most):
                self._put(path, lambda partial: shutil.copyfile(piece, partial))

    def _put(self, path: Path, write: Callable[[Path], object]) -> bool:
        """Write a file whole or not at all, and make room for it. Return whether it is there."""
        partial = path.with_suffix(f".{os.getpid()}{PARTIAL}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(partial)
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            return False
        make_room(self.folder, self._most, path)
        return path.exists()

    def _path(self, key: Mapping[str, Json]) -> Path:
        return self.folder / f"{name_of(key)}{SUFFIX}"
