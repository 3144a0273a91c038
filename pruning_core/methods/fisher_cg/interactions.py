"""Importance of units with their interactions: what a unit costs after those that are less important are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import weight_of
from pruning_core.arch.paging import held
from pruning_core.linalg.removal import removal_costs
from pruning_core.machine.finite import require_finite
from pruning_core.shapes import Float
from pruning_core.stats.fisher import MaskStatistics


def joint_importance(
    statistics: Sequence[MaskStatistics],
    alone: Sequence[Float[Tensor, " units"]],
    dense: ModelAdapter,
    *,
    damping: float,
    on_sublayer: Callable[[int], None],
) -> tuple[Float[Tensor, " units"], ...]:
    """Return what the removal of each unit costs at its turn; see `removal_costs`.

    The Fisher information of a unit counts what the tokens of a sample do to the loss together, which the curvature's factors
    do not know; they know what other units can take over. Their sum is the price (decision 128).

    Args:
        statistics: Statistics of each sublayer, with factors.
        alone: Importance of each unit by itself, in shares of the model's Fisher information.
        dense: The dense model.
        damping: Ridge of the repair.
        on_sublayer: Called after each sublayer with the number of finished sublayers.

    Raises:
        NotFinite: A factor is NaN or infinite; names the matrix.
    """
    total = sum(float(own.fisher.sum()) for own in statistics) or 1.0
    found: list[Tensor] = []
    for index, (own, scores, sublayer) in enumerate(zip(statistics, alone, dense.sublayers, strict=True), start=1):
        assert own.factors is not None, "they were asked for"
        path = dense.paths[sublayer.output]
        require_finite(own.factors.inputs, f"the second moments of what {path} reads on the calibration samples")
        require_finite(own.factors.outputs, f"the second moments of the gradients by what {path} gives")
        with held(sublayer.block), torch.no_grad():
            costs = removal_costs(
                own.factors.inputs / own.factors.tokens,
                own.factors.outputs / total,
                weight_of(sublayer.output).T,
                unit_width=sublayer.unit_width,
                own=scores.to(own.factors.inputs.device),
                damping=damping,
            )
        found.append(costs.cpu())
        on_sublayer(index)
    return tuple(found)
