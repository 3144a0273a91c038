"""A watch on the kernel's out-of-memory killer, by the cgroup's counter of its kills (cgroup v2)."""

from __future__ import annotations

from pathlib import Path

_EVENTS = Path("/sys/fs/cgroup/memory.events")


class OomWatch:
    """Compares the counter of kills with its value at construction."""

    def __init__(self) -> None:
        self._before = _kills()

    def fired(self) -> bool:
        """Return whether the killer has struck in this container since the construction."""
        return _kills() > self._before


def _kills() -> int:
    try:
        lines = _EVENTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
