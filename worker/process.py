"""Ties between processes of this host (Linux; elsewhere leases do the same more slowly)."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> bool:
    """Arrange that the kernel sends a signal to this process when its parent dies.

    Returns:
        False where the parent was gone before that could be arranged.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def be_first_to_go() -> None:
    """Arrange that the kernel kills this process, not the supervisor, when memory runs out."""
    # A container may forbid the write; the kernel then chooses by itself.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


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
