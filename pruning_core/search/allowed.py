"""Search for the best mask whose widths the engines can hold (`pruning_core.engines.limits`): nothing is padded afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.engines.limits import Limits
from pruning_core.search.cost_curves import search_curves
from pruning_core.shapes import Float


def search_allowed(
    importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: Budget | CurveBudget, limits: Limits
) -> Mask:
    """Find the mask of largest total importance within a budget, among the widths that the engines can hold.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: The unit groups.
        budget: A price for each unit, or a curve for each group.
        limits: What the engines can hold.

    Raises:
        TargetUnreachable: The narrowest of these widths together cost more than the budget.
    """
    if isinstance(budget, CurveBudget):
        curves = tuple(
            tuple((count, cost) for count, cost in curve if count in set(limits.counts(group)))
            for group, curve in zip(groups, budget.curves, strict=True)
        )
    else:
        curves = tuple(
            tuple((count, count * price) for count in limits.counts(group))
            for group, price in zip(groups, budget.prices, strict=True)
        )
    return search_curves(importance, CurveBudget(curves, budget.limit))
