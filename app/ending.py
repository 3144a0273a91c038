"""The end of this process, as requests that wait need to know it: streams, polls and bodies that are still coming."""

from __future__ import annotations

import time
from typing import Protocol


class Ends(Protocol):
    """A server that says when it is to end, as uvicorn's does."""

    should_exit: bool


class Ending:
    """Whether the process was told to end, and for how long requests may still go on.

    Args:
        grace_s: Seconds that they have.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._server: Ends | None = None
        self._began_at: float | None = None

    def follow(self, server: Ends) -> None:
        """End when a server does that cannot tell: a bare uvicorn waits for the requests before it tells the application."""
        self._server = server

    def begin(self) -> None:
        """End from now on."""
        if self._began_at is None:
            self._began_at = time.monotonic()

    @property
    def has_begun(self) -> bool:
        """Whether who waits for something new should answer with what there is."""
        if self._server is not None and self._server.should_exit:
            self.begin()
        return self._began_at is not None

    @property
    def is_over(self) -> bool:
        """Whether the time of all requests has run out."""
        return self.has_begun and self._began_at is not None and time.monotonic() - self._began_at >= self.grace_s
