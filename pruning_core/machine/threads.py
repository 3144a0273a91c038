"""How matrix products are run: what must be said before torch is imported. Torch-free."""

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


def keep_few_kernels() -> None:
    """Let oneDNN keep the code of 128 shapes of bfloat16 products instead of 1024, unless the user has decided otherwise.

    Pruned layers all have widths of their own and batches have lengths of theirs: a run met thousands of shapes, each once, and
    what was kept of them took 150 MB and saved no time.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
