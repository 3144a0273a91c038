"""Full disks: one judgement of what files, databases and libraries raise when there is no room left.

Standard library only, because a job's child process asks here too.
"""

from __future__ import annotations

import errno
import os

# No space, no quota, or a limit on the size of one file: somebody has to make room.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_POSTGRESQL_STATE = "53100"
_SQLITE_CODE = 13  # SQLITE_FULL
_SQLITE_PRIMARY = 0xFF  # extended codes keep the primary one in their lowest byte


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a file is full."""
    found = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver raises
    if isinstance(found, OSError) and found.errno is not None:
        return found.errno in _NUMBERS
    if getattr(found, "sqlstate", None) == _POSTGRESQL_STATE:
        return True
    if getattr(found, "sqlite_errorcode", 0) & _SQLITE_PRIMARY == _SQLITE_CODE:
        return True
    # Libraries in other languages raise errors of their own around the system's words.
    return any(os.strerror(number) in str(found) for number in _NUMBERS)
