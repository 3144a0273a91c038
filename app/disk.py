"""Full disks: what the core's classifier says of an error, what SQLAlchemy and SQLite add to it, and how much room is left."""

from __future__ import annotations

import shutil
from pathlib import Path

from pruning_core.machine.resources import disk_is_full

_SQLITE_CODE = 13  # SQLITE_FULL
_SQLITE_PRIMARY = 0xFF  # extended codes keep the primary one in their lowest byte


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that a disk, a quota or a file is full."""
    found = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver raises
    return getattr(found, "sqlite_errorcode", 0) & _SQLITE_PRIMARY == _SQLITE_CODE or disk_is_full(found)


def free_bytes(folder: Path) -> int:
    """Return the room on the disk of a folder that exists."""
    return shutil.disk_usage(folder).free
