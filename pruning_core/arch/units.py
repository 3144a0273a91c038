"""Units of a sublayer and what one of them costs: multiply-accumulates and parameters. Torch-free.

One unit is an attention head (its rows of Q, K, V and its columns of the output projection; where query heads share a key and
a value, all that share them) or an FFN neuron (its rows of the first matrix, with that of the gate, and its column of the
last). Costs follow Kwon et al. 2022 (arXiv 2204.09656, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.arch.signatures import UnitKind


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
