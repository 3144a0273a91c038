"""The search for a mask, by the kind of its budget."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pruning_core.cost import Budget, CurveBudget, UnitGroup
from pruning_core.delivery import Layout
from pruning_core.masks import Mask
from pruning_core.search.budget import search_budget
from pruning_core.search.curves import search_curves
from pruning_core.search.stock import search_stock
from pruning_core.shapes import Float


def search_mask(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    budget: Budget | CurveBudget,
    layout: Layout = "per_layer",
) -> Mask:
    """Find the mask of largest total importance within a budget: exact prices a unit, or measured curves a sublayer."""
    if layout == "stock":
        return search_stock(importance, groups, budget)
    if isinstance(budget, CurveBudget):
        return search_curves(importance, groups, budget)
    return search_budget(importance, groups, budget)
