"""Budgets over unit groups: how much a target allows to keep. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.errors import TargetUnreachable
from pruning_core.spec.targets import TARGET_METRICS, Target


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on the units kept: ``sum(kept units * price) <= limit``, with one price for each group.

    Attributes:
        prices: Price of one unit of each group.
        limit: Largest total price of the kept units.
        slack: How much of the limit may stay unspent with the target still met.
    """

    prices: tuple[float, ...]
    limit: float
    slack: float = 0.0

    def spent(self, kept: Sequence[int]) -> float:
        """Compute the price of keeping ``kept[i]`` units of group i."""
        return sum(price * count for price, count in zip(self.prices, kept, strict=True))


@dataclass(frozen=True, slots=True)
class CurveBudget:
    """A bound on a cost that depends on the number of units kept through a curve, with one curve for each group.

    Attributes:
        curves: For each group the pairs ``(units kept, cost)`` to choose from, ascending in units.
        limit: Largest sum of the costs.
    """

    curves: tuple[tuple[tuple[int, float], ...], ...]
    limit: float

    @property
    def least(self) -> float:
        """Cost of the cheapest count of every group."""
        return sum(min(cost for _, cost in curve) for curve in self.curves)


@dataclass(frozen=True, slots=True)
class Recounted:
    """Counts and measurements of the written checkpoint, from which the metrics of targets are computed.

    Attributes:
        groups: Unit groups of the dense model.
        kept: Number of units of each group in the files.
        length: Mean real sequence length of the task, in tokens.
        parameters: Number of parameters of the dense model, and in the files.
        sparsity: Share of the prunable weights that are removed or zero.
        covered_sparsity: The same share of the weights in whole blocks; None if the method has no pattern target.
        latency_ms: Latency of the dense model, and of the model in the files.
        nbytes: Bytes of the weight files.
    """

    groups: Sequence[UnitGroup]
    kept: Sequence[int]
    length: float
    parameters: tuple[int, int]
    sparsity: float
    covered_sparsity: float | None
    latency_ms: tuple[float, float]
    nbytes: int = 0

    def kept_share(self, price: Callable[[UnitGroup, float], float]) -> float:
        """Compute the share of the dense model's cost that the kept units have, under a price of one unit."""
        whole = _cost(self.groups, [group.size for group in self.groups], self.length, price)
        return _cost(self.groups, self.kept, self.length, price) / whole


@dataclass(frozen=True, slots=True)
class Rule:
    """How a metric of targets is priced before pruning, and recounted after.

    Attributes:
        recount: Computes the metric of a written checkpoint.
        price: Computes the price of one unit at a mean length in tokens. None where the metric is not a sum over units.
        whole_model: Whether the parameters that cannot be pruned count too.
    """

    recount: Callable[[Recounted], float]
    price: Callable[[UnitGroup, float], float] | None = None
    whole_model: bool = False


def _cost(
    groups: Sequence[UnitGroup], counts: Sequence[int], length: float, price: Callable[[UnitGroup, float], float]
) -> float:
    """Sum the prices of so many units of each group."""
    return sum(price(group, length) * count for group, count in zip(groups, counts, strict=True))


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
    "bytes": Rule(lambda found: float(found.nbytes)),
}


def budget_for(
    target: Target,
    groups: Sequence[UnitGroup],
    *,
    total_params: int,
    left_params: int | None = None,
    length: float,
    floors: Sequence[int] | None = None,
) -> Budget:
    """Translate a target into a budget over unit groups.

    Args:
        target: Target of the user, in a metric that gives units a price.
        groups: Unit group of every prunable sublayer.
        total_params: Parameters of the whole dense model.
        left_params: Those of them that are left when the units are chosen; None: all of them.
        length: Mean real sequence length of the task, in tokens.
        floors: Number of units of each group that must stay; None: the group's own.

    Raises:
        TargetUnreachable: Even the smallest model, which keeps only each group's floor, is above the budget.
        ValueError: Units have no price in the metric of the target.
    """
    rule, metric = RULES[target.metric], TARGET_METRICS[target.metric]
    if rule.price is None:
        raise ValueError(f"units have no price in {target.metric}")
    prices = tuple(rule.price(group, length) for group in groups)
    prunable = sum(price * group.size for price, group in zip(prices, groups, strict=True))
    total, fixed = (float(total_params), (left_params or total_params) - prunable) if rule.whole_model else (prunable, 0.0)
    kept_share = 1 - target.requested if metric.removed else target.requested
    budget = Budget(prices, kept_share * total - fixed, target.tolerance * total)
    least = budget.spent([group.floor for group in groups] if floors is None else floors)
    if least > budget.limit:
        smallest = (least + fixed) / total
        if metric.removed:
            reach = f"at most {1 - smallest:.3f} of the prunable weights can be removed from this model"
        else:
            reach = f"at least {smallest:.3f} of its {target.metric} must be kept of this model"
        raise TargetUnreachable(f"{reach}, got {metric.field} {target.requested}", param=f"target.{metric.field}")
    return budget


def kept_macs(groups: Sequence[UnitGroup], kept: Sequence[int], length: float) -> float:
    """Compute the multiply-accumulates of the kept units for one sequence of ``length`` tokens (a mean may be fractional)."""
    return _cost(groups, kept, length, UnitGroup.macs_per_unit)


def kept_weights(groups: Sequence[UnitGroup], kept: Sequence[int]) -> int:
    """Count the weights that the kept units have in the prunable linears."""
    return sum(group.weights_per_unit * count for group, count in zip(groups, kept, strict=True))
