"""A flag that processes share."""

from __future__ import annotations

import mmap


class SharedFlag:
    """A flag that a process shares with those that it forks later: once set, always set.

    One byte of shared memory and no lock, so that it can be set in a signal handler, and a process that is killed while it
    looks cannot block the others.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Set the flag for every process."""
        self._memory[0] = 1

    def is_set(self) -> bool:
        """Return whether any process has set the flag."""
        return self._memory[0] == 1
