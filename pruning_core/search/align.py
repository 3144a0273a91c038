"""Alignment of FFN widths to multiples of sixteen, which matrix kernels prefer, at next to no cost in importance.

Kernels work in blocks: a width of 1191 takes as long as 1200, or longer (docs/decisions/0014 has the measurements). So widths
are rounded down. The budget that this frees is spent again block by block, each time where a block is worth most. The budget is
never exceeded. Where it has no room for blocks (a small model, a narrow tolerance), the widths stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget
from pruning_core.search.importance import most_important
from pruning_core.shapes import Float

# One AVX-512 vector of float32, which is one cache line, and twice the multiple that half precision wants on GPUs.
BLOCK = 16
# Largest share of a budget's slack that alignment may use: a target should not be met by a hair.
_SHARE = 0.9


def has_room(budget: Budget, unspent: float) -> bool:
    """Return whether the target is still met, with a margin, where so much of the budget is unspent."""
    return unspent <= _SHARE * budget.slack


def align(mask: Mask, importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: Budget) -> Mask:
    """Round the widths of a mask to multiples of a block, within the same budget.

    Args:
        mask: The best mask without this constraint.
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: The unit groups.
        budget: Prices and limit.
    """
    counts = mask.counts()
    ffns = [index for index, group in enumerate(groups) if group.kind == "neuron" and counts[index] < group.size]
    for index in ffns:
        counts[index] -= counts[index] % BLOCK
    ordered = {index: importance[index].double().cpu().sort(descending=True).values for index in ffns}
    left = budget.limit - budget.spent(counts)

    def worth(index: int) -> float:
        """Return the importance of a group's next block, divided by the price of a unit."""
        return float(ordered[index][counts[index] : counts[index] + BLOCK].sum()) / budget.prices[index]

    def fits(index: int) -> bool:
        return counts[index] + BLOCK <= groups[index].size and BLOCK * budget.prices[index] <= left

    while fitting := [index for index in ffns if fits(index)]:
        chosen = max(fitting, key=worth)
        counts[chosen] += BLOCK
        left -= BLOCK * budget.prices[chosen]
    if not has_room(budget, left):
        return mask
    kept = list(mask.kept)
    for index in ffns:
        kept[index] = most_important(importance[index], counts[index])
    return Mask(tuple(kept))
