"""Budgets over unit groups: what a target allows to be kept. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruning_core.arch.units import UnitGroup
from pruning_core.errors import TargetUnreachable
from pruning_core.spec.targets import TARGET_METRICS, Target


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


@dataclass(frozen=True, slots=True)
class Recounted:
    """What was counted in the written files, and what was measured of them.

    Attributes:
        groups: Units of the dense model.
        kept: Units of each group that are in the files.
        length: Mean real sequence length of the task, in tokens.
        parameters: Of the dense model, and in the files.
        sparsity: Share of the prunable weights that are gone or zero.
        covered_sparsity: The same of the weights in whole blocks; None where there are no blocks.
        latency_ms: Of the dense model, and of the model in the files.
    """

    groups: Sequence[UnitGroup]
    kept: Sequence[int]
    length: float
    parameters: tuple[int, int]
    sparsity: float
    covered_sparsity: float | None
    latency_ms: tuple[float, float]

    def kept_share(self, price: Callable[[UnitGroup, float], float]) -> float:
        """Return the share that is kept of a cost of units."""
        prices = [price(group, self.length) for group in self.groups]
        whole = sum(one * group.size for one, group in zip(prices, self.groups, strict=True))
        return sum(one * count for one, count in zip(prices, self.kept, strict=True)) / whole


@dataclass(frozen=True, slots=True)
class Rule:
    """How a metric of targets is priced before pruning, and recounted after.

    Attributes:
        recount: The metric of a written checkpoint.
        price: Of one unit, at a mean length in tokens; None where the metric is no sum over units.
        whole_model: Whether what cannot be pruned counts too.
    """

    recount: Callable[[Recounted], float]
    price: Callable[[UnitGroup, float], float] | None = None
    whole_model: bool = False


def _weights(group: UnitGroup, _length: float) -> float:
    return float(group.weights_per_unit)


def _parameters(group: UnitGroup, _length: float) -> float:
    return float(group.params_per_unit)


# The registry: a metric is a row here and a row of `pruning_core.spec.targets.TARGET_METRICS`.
RULES: dict[str, Rule] = {
    "sparsity": Rule(lambda found: found.sparsity, _weights),
    "pattern": Rule(lambda found: found.sparsity if found.covered_sparsity is None else found.covered_sparsity),
    "macs": Rule(lambda found: found.kept_share(UnitGroup.macs_per_unit), UnitGroup.macs_per_unit),
    "params": Rule(lambda found: found.parameters[1] / found.parameters[0], _parameters, whole_model=True),
    "latency": Rule(lambda found: found.latency_ms[1] / found.latency_ms[0]),
}


def budget_for(target: Target, groups: Sequence[UnitGroup], *, total_params: int, length: float) -> Budget:
    """Translate a target into a budget over unit groups.

    Args:
        target: What the user asked for, in a metric that units have a price in.
        groups: All prunable sublayers.
        total_params: Parameters of the whole dense model.
        length: Mean real sequence length of the task, in tokens.

    Raises:
        TargetUnreachable: Even the smallest model that keeps each group's floor is above the budget.
    """
    rule, metric = RULES[target.metric], TARGET_METRICS[target.metric]
    if rule.price is None:
        raise ValueError(f"units have no price in {target.metric}")
    prices = tuple(rule.price(group, length) for group in groups)
    prunable = sum(price * group.size for price, group in zip(prices, groups, strict=True))
    total, fixed = (float(total_params), total_params - prunable) if rule.whole_model else (prunable, 0.0)
    kept_share = 1 - target.requested if metric.removed else target.requested
    budget = Budget(prices, kept_share * total - fixed, target.tolerance * total)
    least = budget.spent([group.floor for group in groups])
    if least > budget.limit:
        smallest = (least + fixed) / total
        if metric.removed:
            reach = f"at most {1 - smallest:.3f} of the prunable weights can be removed from this model"
        else:
            reach = f"at least {smallest:.3f} of its {target.metric} must be kept of this model"
        raise TargetUnreachable(f"{reach}, got {metric.field} {target.requested}", param=f"target.{metric.field}")
    return budget


def kept_macs(groups: Sequence[UnitGroup], kept: Sequence[int], length: float) -> float:
    """Multiply-accumulates of the prunable blocks for one sequence of ``length`` tokens (a mean need not be whole)."""
    return sum(group.macs_per_unit(length) * count for group, count in zip(groups, kept, strict=True))


def kept_weights(groups: Sequence[UnitGroup], kept: Sequence[int]) -> int:
    """Weights that stay in the prunable linear layers."""
    return sum(group.weights_per_unit * count for group, count in zip(groups, kept, strict=True))
