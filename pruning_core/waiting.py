"""How threads of matrix products wait for each other. Must be said before torch is imported; torch-free."""

from __future__ import annotations

import os
import sys


def sleep_when_waiting() -> None:
    """Let OpenMP threads sleep at their barriers instead of spinning, unless the user has decided otherwise.

    Spinning gains nothing measurable on an idle machine. Where another process needs a core, every barrier waits for a thread
    that the kernel has put aside while the others burn what it would need: a run took 20 times as long.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
