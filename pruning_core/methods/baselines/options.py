"""Options of the baselines ``magnitude`` and ``random``. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from pruning_core.spec.options import MethodOptions


class Magnitude(MethodOptions):
    """Baseline: a unit's importance is the squared norm of its output weights."""

    planner: ClassVar[str] = "pruning_core.methods.baselines.scores:prepare_magnitude"

    name: Literal["magnitude"] = "magnitude"


class Random(MethodOptions):
    """Baseline: importance drawn uniformly with the seed."""

    planner: ClassVar[str] = "pruning_core.methods.baselines.scores:prepare_random"

    name: Literal["random"] = "random"
