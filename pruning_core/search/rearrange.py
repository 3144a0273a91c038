"""Mask rearrangement with the off-diagonal Fisher information within a sublayer (Kwon et al. 2022, section 4.2).

The number of units in each sublayer stays, but other units are chosen: minimise ``|| sum over pruned i of g_i ||^2``, with
``g_i`` the vector of unit i's per-sample gradients. The search is greedy and starts from the mask of the diagonal Fisher. Each
kept unit, in ascending importance, is offered to the pruned set, and the set drops the unit whose removal leaves the smallest
norm.

With ``K = g^T g`` and ``v = K 1_pruned``, a step is one vector operation: dropping j from the enlarged set changes the squared
norm by ``K_jj - 2 v_j``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float


def rearrange_units(gradients: Float[Tensor, "samples units"], kept: Bool[Tensor, " units"]) -> Bool[Tensor, " units"]:
    """Swap units of one sublayer so that the gradients of the pruned units cancel.

    Returns:
        A mask with the same number of units. The sum of its pruned units' gradients has no larger norm than before.

    Cost: ``units^2 * samples`` for K, then ``units`` for each kept unit.
    """
    if bool(kept.all()) or not bool(kept.any()):
        return kept.clone()
    g = gradients.double()
    K = g.T @ g
    diagonal = K.diagonal()
    pruned = ~kept
    v = K @ pruned.double()
    offers = kept.nonzero().flatten()
    for unit in offers[diagonal[offers].argsort(stable=True)].tolist():
        enlarged = v + K[:, unit]
        change = torch.where(pruned, diagonal - 2 * enlarged, torch.inf)
        stay = float(diagonal[unit] - 2 * enlarged[unit])
        drop = int(change.argmin())
        if float(change[drop]) < stay:
            pruned[unit], pruned[drop] = True, False
            v = enlarged - K[:, drop]
    return ~pruned
