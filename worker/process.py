"""Ties between processes of this host (Linux; elsewhere leases do the same more slowly)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> bool:
    """Have the kernel send a signal to this process when its parent dies.

    Returns:
        False where the parent was gone before that could be arranged.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent
