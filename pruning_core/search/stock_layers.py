"""Search for the best mask in the stock layout: whole layers may go, the others keep all heads and share one FFN width.

Of a mixture of experts all layers stay, each with the same number of experts, which takes the place of the width.

The model's own config can state such a mask. Given the layers, the FFN width follows from the budget, and each layer keeps its
most important neurons. This is exact under the constraint, and nothing is padded afterwards.

The choice of the layers needs more than importance. Importance is a sum over units that are removed one at a time, and does not
predict what happens to a model that loses a whole layer (measured in docs/decisions/0013). So layers are removed one by one, as
long as the repaired model comes closer to the dense one. There are few candidates, and each is judged by trying it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.errors import TargetUnreachable
from pruning_core.machine.finite import require_finite
from pruning_core.search.align import BLOCK, has_room
from pruning_core.search.importance import check_importance, most_important
from pruning_core.shapes import Float

_SLACK = 1e-9
# Number of layer sets, the most important ones, that are tried for each number of layers.
_TRIED = 3

Layers = tuple[int, ...]


def search_stock(
    importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: Budget | CurveBudget, layers: Layers
) -> Mask:
    """Find the mask of largest total importance within the budget that keeps given layers, all their heads and one FFN width.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: Attention and FFN of each layer; all layers alike.
        budget: A price for each unit, or a curve for each group.
        layers: The layers that stay.

    Raises:
        TargetUnreachable: The layers are above the budget even at the smallest FFN width.
    """
    width = widest(groups, budget, len(layers))
    if width is None:
        raise _unreachable()
    kept: list[Tensor] = []
    for group, values in zip(groups, importance, strict=True):
        size = 0 if group.layer not in layers else group.size if group.kind == "head" else width
        kept.append(most_important(values, size))
    return Mask(tuple(kept))


def choose_layers(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    budget: Budget | CurveBudget,
    divergence: Callable[[Layers], float],
) -> Layers:
    """Choose the layers that stay: as many as the budget admits, then fewer as long as that comes closer to the dense model.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: Attention and FFN of each layer; all layers alike.
        budget: A price for each unit, or a curve for each group.
        divergence: Computes the divergence from the dense model of the repaired model with the given layers.

    Raises:
        TargetUnreachable: Even one layer at the smallest FFN width is above the budget.
        NotFinite: A unit's importance, or a divergence, is no finite number.
    """
    check_importance(importance, groups)
    total = len(groups) // 2
    if groups[1].kind == "expert":
        return tuple(range(total))
    most = next((count for count in range(total, 0, -1) if widest(groups, budget, count) is not None), None)
    if most is None:
        raise _unreachable()
    worth = _Worth(importance, groups, budget)
    chosen, best = _closest(worth.best(worth.first(most)), divergence)
    # Once the full width does not use up the budget, fewer layers would keep less than the target asks for.
    while (narrower := widest(groups, budget, len(chosen) - 1)) is not None and narrower < groups[1].size:
        fewer, reached = _closest(worth.best(combinations(chosen, len(chosen) - 1)), divergence)
        if reached >= best:
            break
        chosen, best = fewer, reached
    return chosen


def widest(groups: Sequence[UnitGroup], budget: Budget | CurveBudget, layers: int) -> int | None:
    """Return the largest FFN width at which so many layers fit the budget; None where no width fits, or for no layer."""
    if layers < 1:
        return None
    limit = budget.limit * (1 + _SLACK)
    if isinstance(budget, CurveBudget):
        attention = dict(budget.curves[0])[groups[0].size]
        costs = [(width, attention + cost) for width, cost in budget.curves[1] if width > 0]
    else:
        attention, price = budget.prices[0] * groups[0].size, budget.prices[1]
        costs = [(width, attention + price * width) for width in range(max(1, groups[1].least), groups[1].size + 1)]
    width, cost = max((option for option in costs if layers * option[1] <= limit), default=(None, 0.0))
    if width is None or width == groups[1].size or isinstance(budget, CurveBudget):
        return width
    aligned = width - width % BLOCK
    unspent = limit - layers * (cost - budget.prices[1] * (width - aligned))
    return aligned if aligned and has_room(budget, unspent) else width


class _Worth:
    """The worth of a set of layers: the importance of their heads, and of their best neurons at the width that fits."""

    def __init__(self, importance: Sequence[Tensor], groups: Sequence[UnitGroup], budget: Budget | CurveBudget) -> None:
        self._heads = [float(values.double().sum()) for values in importance[::2]]
        self._neurons = [_prefix(values) for values in importance[1::2]]
        self._groups, self._budget = groups, budget

    def first(self, count: int) -> list[Layers]:
        """Return the set of the ``count`` most important layers, and every set that swaps one of them for another layer."""
        width = widest(self._groups, self._budget, count) or 0
        total = range(len(self._heads))
        order = sorted(total, key=lambda layer: -self._heads[layer] - float(self._neurons[layer][width]))
        inside, outside = order[:count], order[count:]
        swapped = [{*inside, new} - {old} for old in inside for new in outside]
        return [tuple(sorted(layers)) for layers in (set(inside), *swapped)]

    def best(self, sets: Iterable[Layers]) -> list[Layers]:
        return heapq.nlargest(_TRIED, sets, key=self._of)

    def _of(self, layers: Layers) -> float:
        width = widest(self._groups, self._budget, len(layers)) or 0
        return sum(self._heads[layer] + float(self._neurons[layer][width]) for layer in layers)


def _closest(sets: Sequence[Layers], divergence: Callable[[Layers], float]) -> tuple[Layers, float]:
    tried = [(divergence(layers), layers) for layers in sets]
    for reached, layers in tried:
        kept = ", ".join(str(1 + layer) for layer in layers)
        require_finite(reached, f"the divergence of a trial repair that keeps layers {kept}")
    reached, layers = min(tried)
    return layers, reached


def _prefix(values: Tensor) -> Tensor:
    ordered = values.double().cpu().sort(descending=True).values
    return torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)])


def _unreachable() -> TargetUnreachable:
    return TargetUnreachable(
        "the stock layout keeps all heads of a layer, and even one layer is above the budget; keep more, or use per_layer",
        param="artifacts.layout",
    )
