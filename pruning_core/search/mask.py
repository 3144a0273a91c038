"""The search for a mask, by the kind of its budget."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pruning_core.cost import Budget, CurveBudget, UnitGroup
from pruning_core.masks import Mask
from pruning_core.search.align import align
from pruning_core.search.budget import search_budget
from pruning_core.search.curves import search_curves
from pruning_core.search.stock import search_stock
from pruning_core.shapes import Float


def search_mask(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    budget: Budget | CurveBudget,
    layers: tuple[int, ...] | None = None,
) -> Mask:
    """Find the mask of largest total importance within a budget: exact prices a unit, or measured curves a sublayer.

    Args:
        importance: One value >= 0 a unit, one tensor a group.
        groups: The unit groups.
        budget: Prices or curves.
        layers: In the stock layout, the layers that stay.
    """
    if layers is not None:
        return search_stock(importance, groups, budget, layers)
    if isinstance(budget, CurveBudget):
        return search_curves(importance, groups, budget)
    return align(search_budget(importance, groups, budget), importance, groups, budget)
