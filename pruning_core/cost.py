"""What units cost: multiply-accumulates and parameters. Torch-free.

One unit is an attention head (its rows of Q, K, V and its columns of the output projection; where query heads share a key and
a value, all that share them) or an FFN neuron (its rows of the first matrix, with that of the gate, and its column of the
last). Costs follow Kwon et al. 2022 (arXiv 2204.09656, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.arch.signatures import UnitKind
from pruning_core.errors import TargetUnreachable
from pruning_core.spec import KeepTarget, SparsityTarget


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """The units of one sublayer: all of one kind, all of one price.

    Attributes:
        layer: Index of the block.
        kind: Heads of an attention sublayer, or neurons of an FFN.
        size: Number of units.
        unit_width: Columns of the output projection's input that belong to one unit (head size, or 1).
        hidden: Width of the residual stream.
        weights_per_unit: Weights of the prunable linear layers, biases excluded.
        params_per_unit: Parameters, biases included, and those of matrices that read something else than the hidden states.
        least_neurons: That must stay of an FFN; most may vanish.
    """

    layer: int
    kind: UnitKind
    size: int
    unit_width: int
    hidden: int
    weights_per_unit: int
    params_per_unit: int
    least_neurons: int = 0

    @property
    def floor(self) -> int:
        """Units that must stay: one head, since attention over no head has no shape."""
        return 1 if self.kind == "head" else self.least_neurons

    def macs_per_unit(self, length: float) -> float:
        """Multiply-accumulates of one unit for one sequence of ``length`` tokens.

        A head costs four projections and the two products with the attention matrix, ``4 S d d_h + 2 S^2 d_h``; a neuron
        ``2 S d``, with a gate ``3 S d``.
        """
        linear = length * self.weights_per_unit
        return linear + 2 * length**2 * self.unit_width if self.kind == "head" else linear


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of a matrix that belong to one unit, and whether they have a bias."""

    rows: int
    bias: bool


def unit_group(
    layer: int,
    kind: UnitKind,
    *,
    units: int,
    unit_width: int,
    hidden: int,
    inputs: Sequence[RowCount],
    followers: Sequence[RowCount] = (),
    least_neurons: int = 0,
) -> UnitGroup:
    """Describe one sublayer's units from the matrices that they have rows of, beside their columns of the output projection."""
    weights = hidden * (sum(own.rows for own in inputs) + unit_width)
    beside = hidden * sum(own.rows for own in followers)
    biases = sum(own.rows for own in (*inputs, *followers) if own.bias)
    return UnitGroup(layer, kind, units, unit_width, hidden, weights, weights + beside + biases, least_neurons)


def head_group(layer: int, *, heads: int, head_size: int, hidden: int, biases: bool = True) -> UnitGroup:
    """Describe the heads of one attention sublayer, each with a query, a key and a value of its own."""
    rows = [RowCount(head_size, biases)] * 3
    return unit_group(layer, "head", units=heads, unit_width=head_size, hidden=hidden, inputs=rows)


def neuron_group(layer: int, *, neurons: int, hidden: int, biases: bool = True) -> UnitGroup:
    """Describe the neurons of one FFN without a gate."""
    rows = [RowCount(1, biases)]
    return unit_group(layer, "neuron", units=neurons, unit_width=1, hidden=hidden, inputs=rows)


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
