"""Ties between processes of this host (Linux; elsewhere leases do the same more slowly)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

from app.sandbox import kernel

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> bool:
    """Arrange that the kernel sends a signal to this process when its parent dies.

    Returns:
        False where the parent was gone before that could be arranged.
    """
    if not kernel.available():
        return True
    kernel.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number))
    return os.getppid() == parent


def be_first_to_go() -> None:
    """Arrange that the kernel kills this process, not the one that started it, when memory runs out."""
    # A container may forbid the write; the kernel then chooses by itself.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
