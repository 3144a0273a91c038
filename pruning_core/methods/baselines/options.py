"""Options of the baselines ``magnitude`` and ``random``. Torch-free."""

from __future__ import annotations

from typing import Literal

from pruning_core.spec.frozen import Frozen


class Magnitude(Frozen):
    """Baseline: a unit's importance is the squared norm of its output weights."""

    name: Literal["magnitude"] = "magnitude"


class Random(Frozen):
    """Baseline: importance drawn uniformly with the seed."""

    name: Literal["random"] = "random"
