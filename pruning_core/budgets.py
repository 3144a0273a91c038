"""Budgets over unit groups: how much a target allows to keep. Torch-free."""

from __future__ import annotations

import math
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

    @property
    def kept_macs_share(self) -> float:
        """The share of the dense model's multiply-accumulates that stay."""
        whole = kept_macs(self.groups, [group.size for group in self.groups], self.length)
        return kept_macs(self.groups, self.kept, self.length) / whole


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
    "macs": Rule(lambda found: found.kept_macs_share, UnitGroup.macs_per_unit),
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
    refuse_for_experts(target, groups)
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
        passed = max(group.passed for group in groups)
        if passed:
            reach += f" (each layer keeps its attention, and the {passed} experts that a token passes through)"
        raise TargetUnreachable(f"{reach}, got {metric.field} {target.requested}", param=f"target.{metric.field}")
    return budget


def refuse_for_experts(target: Target, groups: Sequence[UnitGroup]) -> None:
    """Refuse a target that the removal of experts does not bring nearer.

    Raises:
        TargetUnreachable: It is so.
    """
    passed = max(group.passed for group in groups)
    if passed and target.metric in ("macs", "latency"):
        raise TargetUnreachable(
            f"a token passes through {passed} experts of a layer, however many there are: removing experts saves parameters "
            f"and bytes, and no {'multiply-accumulates' if target.metric == 'macs' else 'time'}; ask for metric params, bytes "
            f"or sparsity instead of {target.metric}",
            param="target.metric",
        )


def check_steps_of_experts(target: Target, groups: Sequence[UnitGroup], budget: Budget, whole: float, *, alike: bool) -> None:
    """Refuse a target between two numbers of experts that are both further from it than its tolerance.

    Args:
        target: The target, in a metric that gives units a price.
        groups: Unit group of every sublayer; attention stays whole.
        budget: Its budget.
        whole: The metric of the dense model, in units of the budget's prices.
        alike: Whether every layer keeps the same number.

    Raises:
        TargetUnreachable: It is so; the message names what would be met.
    """
    mixtures = [index for index, group in enumerate(groups) if group.passed]
    layers = len(mixtures) if alike else 1
    step = budget.prices[mixtures[0]] * layers
    least, most = (sum(own) // layers for own in zip(*((groups[i].floor, groups[i].size) for i in mixtures), strict=True))
    beside = budget.spent([0 if group.passed else group.size for group in groups])
    count = min(most, int((budget.limit * (1 + 1e-9) - beside) // step))
    if count < least or budget.limit - beside - count * step <= budget.slack:
        return
    metric = TARGET_METRICS[target.metric]
    asked = 1 - target.requested if metric.removed else target.requested
    near = [asked + (beside + own * step - budget.limit) / whole for own in (count, count + 1) if own <= most]
    # Rounded so that the number of experts still fits.
    shares = [math.floor(1000 * (1 - own)) if metric.removed else math.ceil(1000 * own) for own in near]
    named = " or ".join(f"{share / 1000:.3f}" for share in shares)
    where = "in each layer" if alike else "in all layers together"
    raise TargetUnreachable(
        f"{count} experts {where} are fewer than {metric.field} {target.requested:g} within {target.tolerance:g} asks for, and "
        f"{count + 1} are more; ask for {metric.field} {named}, or raise target.tolerance",
        param=f"target.{metric.field}",
    )


def kept_macs(groups: Sequence[UnitGroup], kept: Sequence[int], length: float) -> float:
    """Compute the multiply-accumulates of the kept units for one sequence of ``length`` tokens (a mean may be fractional)."""
    fixed = sum(group.fixed_macs(length) for group, count in zip(groups, kept, strict=True) if count)
    return fixed + _cost(groups, kept, length, UnitGroup.macs_per_unit)


def kept_weights(groups: Sequence[UnitGroup], kept: Sequence[int]) -> int:
    """Count the weights that the kept units have in the prunable linears."""
    return sum(group.weights_per_unit * count for group, count in zip(groups, kept, strict=True))
