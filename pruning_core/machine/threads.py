"""Environment variables for matrix products, which must be set before torch is imported. Torch-free."""

from __future__ import annotations

import os
import sys


def sleep_when_waiting() -> None:
    """Let OpenMP threads sleep at their barriers instead of spinning, unless the user has decided otherwise.

    Spinning gains nothing measurable on an idle machine. Where another process needs a core, each barrier waits for a thread
    that has no core, while the other threads spin on theirs: a run took 20 times as long.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def keep_few_kernels() -> None:
    """Let oneDNN cache kernels for 128 shapes of bfloat16 products instead of 1024, unless the user has decided otherwise.

    Every pruned layer has its own width and every batch its own length. A run met thousands of shapes, each of them once: the
    cached kernels took 150 MB and saved no time.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
