"""The search for a mask: dispatch by layout and kind of budget."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.engines.limits import Limits
from pruning_core.search.align import BLOCK, align
from pruning_core.search.allowed import search_allowed
from pruning_core.search.cost_curves import search_curves
from pruning_core.search.exact import search_budget
from pruning_core.search.importance import check_importance
from pruning_core.search.stock_layers import search_stock
from pruning_core.shapes import Float

_SMALL = 512


def search_mask(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    budget: Budget | CurveBudget,
    layers: tuple[int, ...] | None = None,
    limits: Limits | None = None,
) -> Mask:
    """Find the mask of largest total importance within a budget.

    A budget of prices becomes one of curves where units of one kind differ in price, as where the heads of an encoder and its
    decoder differ.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: The unit groups.
        budget: A price for each unit, or a curve for each group.
        layers: Layers that stay, in the stock layout; None in the other layouts.
        limits: What the engines can hold, in the layout for serving; None in the other layouts.

    Raises:
        NotFinite: A unit has no finite importance.
    """
    check_importance(importance, groups)
    if layers is not None:
        return search_stock(importance, groups, budget, layers)
    if limits is not None:
        return search_allowed(importance, groups, budget, limits)
    assert all(len(values) == group.size for values, group in zip(importance, groups, strict=True)), "a score for every unit"
    if isinstance(budget, CurveBudget):
        return search_curves(importance, budget)
    if _differ(groups, budget):
        return search_curves(importance, _curves(groups, budget))
    return align(search_budget(importance, groups, budget), importance, groups, budget)


def _differ(groups: Sequence[UnitGroup], budget: Budget) -> bool:
    prices = {(group.kind, price) for group, price in zip(groups, budget.prices, strict=True)}
    return len(prices) > len({group.kind for group in groups})


def _curves(groups: Sequence[UnitGroup], budget: Budget) -> CurveBudget:
    """Make a curve for each group: it offers every count of a small group, and multiples of `BLOCK` of a large one."""
    curves: list[tuple[tuple[int, float], ...]] = []
    for group, price in zip(groups, budget.prices, strict=True):
        counts = range(min(group.floor, group.size), group.size + 1)
        offered = [count for count in counts if group.size <= _SMALL or count % BLOCK == 0 or count in (counts[0], counts[-1])]
        curves.append(tuple((count, count * price) for count in offered))
    return CurveBudget(tuple(curves), budget.limit)
