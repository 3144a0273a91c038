"""The reasons for which a supervisor stops a child."""

from __future__ import annotations

from enum import Enum, auto


class Stop(Enum):
    """The reasons to stop a child."""

    LEASE_LOST = auto()
    CANCELLED = auto()
    TIMEOUT = auto()
    FETCH_TIMEOUT = auto()
    SHUTDOWN = auto()

    @property
    def said(self) -> str:
        """The reason in words."""
        return f"stopped ({self.name.lower().replace('_', ' ')})"
