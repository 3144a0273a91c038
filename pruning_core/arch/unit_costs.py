"""Units of a sublayer, and the cost of one unit in multiply-accumulates and parameters. Torch-free.

A unit is an attention head, an FFN neuron, or an expert of a mixture. A head has rows of the query, key and value projections
and columns of the output projection; query heads that share a key and a value are one unit. A neuron has a row of the first
matrix, one of the gate where there is a gate, and a column of the last matrix. An expert has matrices of its own and a row of
the router. Costs follow Kwon et al. 2022 (arXiv 2204.09656, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.arch.signatures import UnitKind

# Widest mixture whose output projections are refitted: the Gram matrix of its features has the square of its width.
WIDEST_REPAIR = 16_384


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """The units of one sublayer: all of one kind, all of one cost.

    Attributes:
        layer: Index of the block.
        kind: Heads of an attention sublayer, neurons of an FFN, or experts of a mixture.
        size: Number of units.
        unit_width: Input columns of the output projection that belong to one unit; 1 for a neuron.
        hidden: Width of the residual stream.
        weights_per_unit: Weights of one unit in the prunable linears, biases excluded.
        params_per_unit: Parameters of one unit: its weights, its biases, and its rows of matrices that read something else
            than the hidden states.
        least_neurons: Number of neurons that an FFN must keep; 0 for most models.
        least: Number of units that must stay: all heads where attention stays whole, as many experts as a token passes through.
        passed: Number of experts that a token passes through, however many there are; 0 for other kinds.
        times: Number of layers that run the units, where one block runs for all layers.
    """

    layer: int
    kind: UnitKind
    size: int
    unit_width: int
    hidden: int
    weights_per_unit: int
    params_per_unit: int
    least_neurons: int = 0
    least: int = 0
    passed: int = 0
    times: int = 1

    @property
    def floor(self) -> int:
        """Number of units that must stay. Of an attention it is one head, since attention over no head has no shape."""
        return max(1 if self.kind == "head" else self.least_neurons, self.least)

    @property
    def repairable(self) -> bool:
        """Whether least squares have room for all its columns at once."""
        return self.kind != "expert" or self.size * self.unit_width <= WIDEST_REPAIR

    def macs_per_unit(self, length: float) -> float:
        """Compute the multiply-accumulates of one unit for one sequence of ``length`` (S) tokens.

        A head costs four projections and the two products with the attention matrix, ``4 S d d_h + 2 S^2 d_h``. A neuron costs
        ``2 S d``, or ``3 S d`` with a gate. An expert costs nothing by being there: see `fixed_macs`.
        """
        if self.kind == "expert":
            return 0.0
        linear = length * self.weights_per_unit
        return self.times * (linear + 2 * length**2 * self.unit_width if self.kind == "head" else linear)

    def fixed_macs(self, length: float) -> float:
        """Compute the multiply-accumulates that do not depend on the number of units: those of the experts of each token."""
        return length * self.weights_per_unit * self.passed


@dataclass(frozen=True, slots=True)
class RowCount:
    """Number of rows of a matrix that belong to one unit, and whether they have a bias."""

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
    vectors: int = 0,
    least_neurons: int = 0,
    least: int = 0,
    passed: int = 0,
    times: int = 1,
) -> UnitGroup:
    """Describe the units of one sublayer.

    Args:
        layer: Index of the block.
        kind: Heads, neurons or experts.
        units: Number of units.
        unit_width: Input columns of the output projection that belong to one unit.
        hidden: Width of the residual stream.
        inputs: Rows of one unit in the matrices that read the hidden states.
        followers: Rows of one unit in other matrices.
        vectors: Number of vectors apart from matrices that have an entry for each of its columns.
        least_neurons: Number of neurons that an FFN must keep.
        least: Number of units that must stay.
        passed: Number of experts that a token passes through.
        times: Number of layers that run the units.
    """
    weights = hidden * (sum(own.rows for own in inputs) + unit_width)
    beside = hidden * sum(own.rows for own in followers)
    biases = sum(own.rows for own in (*inputs, *followers) if own.bias) + vectors * unit_width
    params = weights + beside + biases
    return UnitGroup(
        layer, kind, units, unit_width, hidden, weights, params, least_neurons, least=least, passed=passed, times=times
    )
