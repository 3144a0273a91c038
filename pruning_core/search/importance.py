"""What every search asks of its scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.machine.finite import require_finite
from pruning_core.shapes import Bool, Float


def most_important(values: Float[Tensor, " units"], count: int) -> Bool[Tensor, " units"]:
    """Return flags of so many units, the most important ones; of equal ones the first. On the CPU."""
    flags = torch.zeros(len(values), dtype=torch.bool)
    flags[values.cpu().argsort(descending=True, stable=True)[:count]] = True
    return flags


def check_importance(importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup]) -> None:
    """Check that every unit has a finite importance: NaN would be sorted somewhere, and decide.

    Raises:
        NotFinite: One has none; names its layer.
    """
    for values, group in zip(importance, groups, strict=True):
        sublayer = "attention" if group.kind == "head" else "FFN"
        require_finite(values, f"the importance of the units of layer {group.layer + 1} {sublayer}")
