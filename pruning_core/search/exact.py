"""Exact search for the best mask under a budget of prices.

Maximise the importance kept subject to ``sum(kept units * price) <= limit`` (Kwon et al. 2022, section 4.1: equivalently,
minimise the importance pruned). All heads have one price and all neurons, or experts, have one price. So the optimum is found
by trying every number of heads and spending the rest of the budget on neurons. Cost: two sorts and one prefix sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget
from pruning_core.errors import TargetUnreachable
from pruning_core.shapes import Float

# Relative tolerance, so that the rounding of sums of prices does not exclude a mask that meets the limit exactly.
_SLACK = 1e-9


def search_budget(importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], budget: Budget) -> Mask:
    """Find the mask of largest total importance within the budget that keeps each group's floor.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: The unit groups. All heads must have one price, and all neurons or experts one price.
        budget: Prices and limit.

    Raises:
        ValueError: Units of one kind differ in price.
        TargetUnreachable: Not even the floors are within the limit.
    """
    other = next((group.kind for group in groups if group.kind != "head"), "neuron")
    heads, neurons = (
        _Kind.gather("head", importance, groups, budget),
        _Kind.gather(other, importance, groups, budget),
    )
    limit = budget.limit * (1 + _SLACK)
    head_counts = torch.arange(heads.forced, heads.size + 1, dtype=torch.float64)
    left = limit - head_counts * heads.price
    neuron_counts = (left / neurons.price).floor().clamp(max=neurons.size) if neurons.size else torch.zeros_like(left)
    feasible = (left >= 0) & (neuron_counts >= neurons.forced)
    if not bool(feasible.any()):
        least = heads.forced * heads.price + neurons.forced * neurons.price
        raise TargetUnreachable(
            f"no mask fits: what each sublayer must keep costs {least:.6g} and {budget.limit:.6g} may be spent; keep more of "
            "the model",
            param="target",
        )
    total = heads.prefix[head_counts.long()] + neurons.prefix[neuron_counts.clamp(min=0).long()]
    best = int(torch.where(feasible, total, -torch.inf).argmax())
    kept_heads = heads.chosen(int(head_counts[best]))
    kept_neurons = neurons.chosen(int(neuron_counts[best]))
    return Mask(tuple((kept_heads if group.kind == "head" else kept_neurons)[i] for i, group in enumerate(groups)))


class _Kind:
    """All units of one kind over all groups: first the best of each group, up to its floor, then the others, best first."""

    def __init__(self, members: list[int], values: list[Tensor], floors: list[int], price: float) -> None:
        self.members = members
        self.sizes = [len(v) for v in values]
        self.size = sum(self.sizes)
        self.price = price
        self.forced = sum(floors)
        must = [torch.zeros(size, dtype=torch.bool) for size in self.sizes]
        for flags, value, floor in zip(must, values, floors, strict=True):
            flags[value.topk(min(floor, len(value))).indices] = True
        flat = torch.cat(values).double().cpu() if values else torch.zeros(0, dtype=torch.float64)
        forced = torch.cat(must) if must else torch.zeros(0, dtype=torch.bool)
        by_value = flat.argsort(descending=True, stable=True)
        self.order = by_value[forced[by_value].int().argsort(descending=True, stable=True)]
        self.prefix = torch.cat([torch.zeros(1, dtype=torch.float64), flat[self.order].cumsum(0)])

    @classmethod
    def gather(cls, kind: str, importance: Sequence[Tensor], groups: Sequence[UnitGroup], budget: Budget) -> _Kind:
        members = [i for i, group in enumerate(groups) if group.kind == kind]
        prices = {budget.prices[i] for i in members}
        if len(prices) > 1:
            raise ValueError(f"exact search needs one price for every {kind}, got {sorted(prices)}")
        floors = [min(groups[i].floor, groups[i].size) for i in members]
        return cls(members, [importance[i] for i in members], floors, prices.pop() if prices else 0.0)

    def chosen(self, count: int) -> dict[int, Tensor]:
        flags = torch.zeros(self.size, dtype=torch.bool)
        flags[self.order[:count]] = True
        return dict(zip(self.members, flags.split(self.sizes), strict=True)) if self.members else {}
