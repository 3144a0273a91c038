"""Rearrangement: off-diagonal Fisher within a sublayer (Kwon et al. 2022, section 4.2).

Keep each sublayer's count, change which units: minimise ``|| sum over pruned i of g_i ||^2``, with ``g_i`` the unit's vector of
per-sample gradients. Greedy from the diagonal's answer: each kept unit, in ascending importance, is offered to the pruned
set, and the set drops the unit whose removal leaves the smallest norm.

With ``K = g^T g`` and ``v = K 1_pruned`` a step is one vector operation: dropping j from the enlarged set changes the squared
norm by ``K_jj - 2 v_j``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float


def rearrange_units(gradients: Float[Tensor, "samples units"], kept: Bool[Tensor, " units"]) -> Bool[Tensor, " units"]:
    """Swap units of one sublayer so that the gradients of the pruned ones cancel.

    Returns:
        A mask with the same count whose pruned units' gradients sum to a norm that is no larger.

    Cost: ``units^2 * samples`` for K, ``units`` for each kept unit after it.
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
