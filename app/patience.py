"""Patience with a peer: waiting uses it up, bytes earn it back."""

from __future__ import annotations


class Patience:
    """A time that standing still uses up at once, and a slow trickle in the end.

    Args:
        limit_s: Seconds that nothing may happen.
        bytes_per_s: The rate at which a peer neither gains nor loses time. Who is faster has ``limit_s`` again soon; who sends
            a byte now and then, only to look alive, has it once.
    """

    __slots__ = ("_bytes_per_s", "_limit_s", "left_s")

    def __init__(self, limit_s: float, bytes_per_s: float) -> None:
        self._limit_s = limit_s
        self._bytes_per_s = bytes_per_s
        self.left_s = limit_s

    def waited(self, seconds: float, count: int) -> None:
        """Account for some waiting, and for the bytes that came of it."""
        self.left_s = min(self._limit_s, self.left_s - seconds + count / self._bytes_per_s)

    def renew(self) -> None:
        """Begin anew: there is nothing to wait for."""
        self.left_s = self._limit_s
