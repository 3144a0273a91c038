"""Room in a folder of kept pieces: what was least recently used goes first. Torch-free."""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from pathlib import Path

SUFFIX, PARTIAL = ".safetensors", ".partial"
# Seconds after which a partial file is one that a killed process has left: writing takes a few.
_ABANDONED_S = 3600.0


def make_room(folder: Path, most_bytes: int | None, newest: Path | None = None) -> None:
    """Delete abandoned files, and pieces in the order of their last use until the others are within a budget.

    Args:
        folder: The folder; one that is not there has room.
        most_bytes: How many bytes its pieces may have; None: as many as there are.
        newest: A piece that goes last, whatever its time says.
    """
    oldest: list[tuple[float, int, Path]] = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                found = path.lstat()
                if path.suffix == PARTIAL and time.time() - found.st_mtime > _ABANDONED_S:
                    path.unlink()
                elif path.suffix == SUFFIX and stat.S_ISREG(found.st_mode):
                    oldest.append((found.st_mtime, found.st_size, path))
    over = 0 if most_bytes is None else sum(size for _, size, _ in oldest) - most_bytes
    for _, size, path in sorted(oldest, key=lambda own: (own[2] == newest, own[0])):
        if over <= 0:
            break
        with suppress(OSError):
            path.unlink()
            over -= size
