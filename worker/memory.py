"""Memory that ran out: what an error says of it, and whether the kernel's out-of-memory killer has struck.

Of the killer only the cgroup's counter knows (cgroup v2).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_EVENTS = Path("/sys/fs/cgroup/memory.events")
# The system's words, and those of torch's CPU allocator, which raises a RuntimeError.
_WORDS = (os.strerror(errno.ENOMEM), "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the host has no memory left for this process."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)


class OomWatch:
    """Compares the counter of kills with its value at construction."""

    def __init__(self) -> None:
        self._before = _kills()

    def fired(self) -> bool:
        """Whether the killer has struck in this container since."""
        return _kills() > self._before


def _kills() -> int:
    try:
        lines = _EVENTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
