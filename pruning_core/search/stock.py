"""The best mask that the model's own config can say: one FFN width for all layers, all heads of a layer, fewer layers.

For each number of layers the width follows from the budget; a layer is worth the importance of its heads and of its best so
many neurons, and the layers of largest worth stay. So the optimum under the constraint is exact: one pass over the numbers of
layers, each O(layers). Nothing is padded afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.cost import Budget, CurveBudget, UnitGroup
from pruning_core.errors import TargetUnreachable
from pruning_core.masks import Mask
from pruning_core.shapes import Float

_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class _Choice:
    worth: float
    layers: tuple[int, ...]
    width: int


def search_stock(
    importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: Budget | CurveBudget
) -> Mask:
    """Find the mask of largest total importance within the budget among those that stock code can build.

    Args:
        importance: One value >= 0 a unit, one tensor a group.
        groups: Attention and FFN of each layer, all layers alike.
        budget: Prices a unit, or curves.

    Raises:
        TargetUnreachable: Even one layer with one neuron is above the budget.
    """
    heads = [float(values.double().sum()) for values in importance[::2]]
    neurons = [_prefix(values) for values in importance[1::2]]
    count = len(heads)
    best: _Choice | None = None
    for layers in range(count, 0, -1):
        width = _widest(groups, budget, layers)
        if width is None:
            continue
        worth = [own + float(prefix[width]) for own, prefix in zip(heads, neurons, strict=True)]
        chosen = sorted(sorted(range(count), key=lambda layer: -worth[layer])[:layers])
        total = sum(worth[layer] for layer in chosen)
        if best is None or total > best.worth:
            best = _Choice(total, tuple(chosen), width)
    if best is None:
        raise TargetUnreachable(
            "the stock layout keeps all heads of a layer, and even one layer is above the budget; keep more, or use per_layer",
            param="artifacts.layout",
        )
    return _mask(importance, groups, best)


def _widest(groups: Sequence[UnitGroup], budget: Budget | CurveBudget, layers: int) -> int | None:
    """Give the largest FFN width at which so many layers fit; None where not even the narrowest does."""
    cost, offered = _costs(groups, budget)
    limit = budget.limit * (1 + _SLACK)
    fitting = [width for width in offered if layers * cost(width) <= limit]
    return max(fitting, default=None)


def _costs(groups: Sequence[UnitGroup], budget: Budget | CurveBudget) -> tuple[Callable[[int], float], list[int]]:
    """Give the cost of one layer with all its heads by its FFN width, and the widths on offer."""
    if isinstance(budget, CurveBudget):
        attention, ffn = dict(budget.curves[0])[groups[0].size], dict(budget.curves[1])
        return lambda width: attention + ffn[width], [width for width in ffn if width > 0]
    attention, price = budget.prices[0] * groups[0].size, budget.prices[1]
    return lambda width: attention + price * width, list(range(1, groups[1].size + 1))


def _prefix(values: Tensor) -> Tensor:
    ordered = values.double().cpu().sort(descending=True).values
    return torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)])


def _mask(importance: Sequence[Tensor], groups: Sequence[UnitGroup], choice: _Choice) -> Mask:
    kept: list[Tensor] = []
    for group, values in zip(groups, importance, strict=True):
        flags = torch.zeros(group.size, dtype=torch.bool)
        if group.layer in choice.layers:
            size = group.size if group.kind == "head" else choice.width
            flags[values.argsort(descending=True, stable=True)[:size]] = True
        kept.append(flags)
    return Mask(tuple(kept))
