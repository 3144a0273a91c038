"""Budgets over unit groups: what a target allows to be kept. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.arch.units import UnitGroup
from pruning_core.errors import TargetUnreachable
from pruning_core.spec.prune import KeepTarget, SparsityTarget


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on what may be kept: ``sum(kept units * price) <= limit``, one price a group.

    Attributes:
        prices: Of one unit of each group.
        limit: What the kept units may cost.
        slack: How much of the limit may stay unspent with the target still met.
    """

    prices: tuple[float, ...]
    limit: float
    slack: float = 0.0

    def spent(self, kept: Sequence[int]) -> float:
        """Price of keeping ``kept[i]`` units of group i."""
        return sum(price * count for price, count in zip(self.prices, kept, strict=True))


@dataclass(frozen=True, slots=True)
class CurveBudget:
    """A bound on a cost that is a curve of the number of units kept, one curve a group.

    Attributes:
        curves: Of each group the offered ``(units kept, cost)``, ascending in units.
        limit: What the costs may sum to.
    """

    curves: tuple[tuple[tuple[int, float], ...], ...]
    limit: float

    @property
    def least(self) -> float:
        """Cost of the cheapest count of every group."""
        return sum(min(cost for _, cost in curve) for curve in self.curves)


def budget_for(target: SparsityTarget | KeepTarget, groups: Sequence[UnitGroup], *, total_params: int, length: float) -> Budget:
    """Translate a target into a budget over unit groups.

    Args:
        target: What the user asked for.
        groups: All prunable sublayers.
        total_params: Parameters of the whole dense model.
        length: Mean real sequence length of the task, in tokens.

    Raises:
        TargetUnreachable: Even the smallest model that keeps each group's floor is above the budget.
    """
    if target.metric == "sparsity":
        prices = tuple(float(group.weights_per_unit) for group in groups)
        fixed, kept_share = 0.0, 1 - target.sparsity
        total = sum(price * group.size for price, group in zip(prices, groups, strict=True))
    elif target.metric == "params":
        prices = tuple(float(group.params_per_unit) for group in groups)
        prunable = sum(price * group.size for price, group in zip(prices, groups, strict=True))
        fixed, total, kept_share = total_params - prunable, float(total_params), target.keep
    else:
        prices = tuple(group.macs_per_unit(length) for group in groups)
        fixed, kept_share = 0.0, target.keep
        total = sum(price * group.size for price, group in zip(prices, groups, strict=True))
    budget = Budget(prices, kept_share * total - fixed, target.tolerance * total)
    least = budget.spent([group.floor for group in groups])
    if least > budget.limit:
        smallest = (least + fixed) / total
        if target.metric == "sparsity":
            reach = f"at most {1 - smallest:.3f} of the prunable weights can be removed from this model"
            field = "sparsity"
        else:
            reach = f"at least {smallest:.3f} of its {target.metric} must be kept of this model"
            field = "keep"
        raise TargetUnreachable(f"{reach}, got {field} {target.requested}", param=f"target.{field}")
    return budget


def kept_macs(groups: Sequence[UnitGroup], kept: Sequence[int], length: float) -> float:
    """Multiply-accumulates of the prunable blocks for one sequence of ``length`` tokens (a mean need not be whole)."""
    return sum(group.macs_per_unit(length) * count for group, count in zip(groups, kept, strict=True))


def kept_weights(groups: Sequence[UnitGroup], kept: Sequence[int]) -> int:
    """Weights that stay in the prunable linear layers."""
    return sum(group.weights_per_unit * count for group, count in zip(groups, kept, strict=True))
