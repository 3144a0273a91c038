"""Loads checkpoints in a fresh process, as ``load`` says, and compares what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.upgrade import load


def answers_of(folder: Path, checkpoints: Sequence[dict[str, Any]], how: str, home: Path) -> list[dict[str, Any]]:
    """Load checkpoints of a folder, and give their answers.

    Args:
        folder: Holds the bundles.
        checkpoints: What ``load`` reads, with a ``path`` in the folder each.
        how: ``plug-in`` or ``remote-code``.
        home: Of the process.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    asked = [checkpoint | {"folder": str(folder / checkpoint["path"])} for checkpoint in checkpoints]
    done = subprocess.run(
        [sys.executable, "-P", load.__file__, how],
        env=kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=home,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def difference(one: Any, other: Any) -> float:
    """Give the largest difference of two nested lists of numbers, relative to the largest number of the second."""
    first, second = np.array(one), np.array(other)
    assert first.shape == second.shape, (first.shape, second.shape)
    return float(np.abs(first - second).max() / np.abs(second).max())
