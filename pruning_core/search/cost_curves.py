"""Mask search under a budget of cost curves, such as measured latency, where half of the units do not cost half of the time.

Each sublayer keeps its ``count`` most important units, at a cost read from its curve. One count is chosen for each sublayer, so
that the kept importance is largest within the limit (`search.options`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.budgets import CurveBudget
from pruning_core.errors import TargetUnreachable
from pruning_core.search.importance import most_important
from pruning_core.search.options import choose_options
from pruning_core.shapes import Float

# A limit that is met exactly must not be exceeded by the rounding of sums of costs.
_SLACK = 1e-9


def search_curves(importance: Sequence[Float[Tensor, " units"]], budget: CurveBudget) -> Mask:
    """Find the mask of largest total importance within the budget. Each sublayer keeps its most important units.

    Args:
        importance: Importance of every unit, >= 0, one tensor for each group.
        budget: Cost curves and limit.

    Raises:
        TargetUnreachable: The cheapest counts of all groups together cost more than the limit.

    Cost: groups x offered counts x bins.
    """
    if not budget.limit > 0 or budget.least > budget.limit * (1 + _SLACK):
        raise TargetUnreachable(
            f"no combination of widths fits: the cheapest one costs {budget.least:.6g}, and the limit is {budget.limit:.6g}; "
            "keep more of the model",
            param="target",
        )
    items: list[list[tuple[float, float]]] = []
    for values, curve in zip(importance, budget.curves, strict=True):
        prefix = torch.cat([torch.zeros(1, dtype=torch.float64), values.double().cpu().sort(descending=True).values.cumsum(0)])
        items.append([(cost, float(prefix[count])) for count, cost in curve])
    chosen = choose_options(items, budget.limit)
    counts = [curve[option][0] for curve, option in zip(budget.curves, chosen, strict=True)]
    return Mask(tuple(most_important(values, count) for values, count in zip(importance, counts, strict=True)))
