"""Options of the baselines ``magnitude`` and ``random``. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from pruning_core.spec.options import MethodOptions


class Magnitude(MethodOptions):
    """Baseline: the importance of a unit is the squared norm of its weights in the output projection."""

    planner: ClassVar[str] = "pruning_core.methods.baselines.scores:prepare_magnitude"
    cuts_experts: ClassVar[bool] = True

    name: Literal["magnitude"] = "magnitude"


class Random(MethodOptions):
    """Baseline: the importance of a unit is drawn uniformly with the seed."""

    planner: ClassVar[str] = "pruning_core.methods.baselines.scores:prepare_random"
    cuts_experts: ClassVar[bool] = True

    name: Literal["random"] = "random"
