"""The best mask under a budget whose prices are curves: measured latency, where half the units do not cost half the time.

Each sublayer keeps its best ``count`` units for some count; its cost is read from a curve. Choosing one count a sublayer so
that the importance kept is greatest within the limit is the multiple-choice knapsack problem, solved by dynamic programming
over the cost, cut into equal bins (Kellerer, Pferschy, Pisinger 2004, *Knapsack Problems*, section 11.5). Costs are rounded
up to bins, so the answer never exceeds the limit; what rounding can waste is one bin a sublayer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import CurveBudget
from pruning_core.errors import TargetUnreachable
from pruning_core.shapes import Float

_BINS = 20_000
# A bound met exactly must not be lost to the rounding of sums of costs.
_SLACK = 1e-9


def search_curves(importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: CurveBudget) -> Mask:
    """Find the counts of largest total importance within the budget; each sublayer keeps its best units.

    Args:
        importance: One value >= 0 a unit, one tensor a group.
        groups: The unit groups.
        budget: Curves and limit.

    Raises:
        TargetUnreachable: Even the cheapest counts of all groups are above the limit.

    Cost: groups x counts offered x bins.
    """
    if not budget.limit > 0 or budget.least > budget.limit * (1 + _SLACK):
        raise TargetUnreachable(
            f"no combination of widths fits: the narrowest cost {budget.least:.6g} and {budget.limit:.6g} may be spent; "
            "keep more of the model",
            param="target",
        )
    bin_cost = budget.limit / _BINS
    best = torch.zeros(_BINS + 1, dtype=torch.float64)
    choices: list[Tensor] = []
    for values, curve in zip(importance, budget.curves, strict=True):
        prefix = torch.cat([torch.zeros(1, dtype=torch.float64), values.double().cpu().sort(descending=True).values.cumsum(0)])
        reached = torch.full_like(best, -torch.inf)
        chosen = torch.zeros(_BINS + 1, dtype=torch.int16)
        for option, (count, cost) in enumerate(curve):
            bins = -int(-cost // bin_cost)
            if bins > _BINS:
                continue
            offered = best[: _BINS + 1 - bins] + prefix[count]
            better = offered > reached[bins:]
            reached[bins:] = torch.where(better, offered, reached[bins:])
            chosen[bins:] = torch.where(better, option, chosen[bins:].int()).to(torch.int16)
        best = reached
        choices.append(chosen)
    position = int(best.argmax())
    if not bool(best[position].isfinite()):  # the cheapest counts fit, and would not with each cost rounded up
        return _best(importance, groups, [min(curve, key=lambda option: option[1])[0] for curve in budget.curves])
    counts: list[int] = []
    for curve, chosen in zip(reversed(budget.curves), reversed(choices), strict=True):
        count, cost = curve[int(chosen[position])]
        position += int(-cost // bin_cost)
        counts.append(count)
    return _best(importance, groups, counts[::-1])


def _best(importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], counts: Sequence[int]) -> Mask:
    """Keep the most important so many units of each group."""
    kept: list[Tensor] = []
    for values, group, count in zip(importance, groups, counts, strict=True):
        flags = torch.zeros(group.size, dtype=torch.bool)
        flags[values.argsort(descending=True, stable=True)[:count]] = True
        kept.append(flags)
    return Mask(tuple(kept))
