"""Costs of removing units one after the other, while the units that are left take over what they can.

The loss of changing a matrix ``W`` (inputs by outputs) by ``D`` is ``tr(D^T G D H)``: the Kronecker-factored curvature of
Martens and Grosse 2015 (arXiv 1503.05671, section 3), with ``G`` the second moment of the inputs and ``H`` that of the loss's
gradient by the outputs. Setting the rows of unit u to zero, and changing all other rows so that the loss is least, costs
``tr(V_u^T (P_uu)^-1 V_u)``, with ``P = G^-1`` and ``V = W chol(H)``: the optimal brain surgeon for a group of rows, as in
LLM Surgeon (van der Ouderaa et al. 2024, arXiv 2312.17244, section 3.2), there with refits of its own.

The changed rows only serve to price the next removal; the weights are repaired later, from the student's own inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.shapes import Float

# Units that are removed at once, as a share of all: prices within so few hardly change.
_AT_ONCE = 1 / 96
# A ridge on H, relative to its mean diagonal: H may have no full rank where there were few tokens.
_FLOOR = 1e-6
# G likewise, where the repair has no ridge of its own.
_LEAST = 1e-4
# Costs must rise strictly, for a search to remove units in the order of their costs.
_RISE = 1e-9


def removal_costs(
    G: Float[Tensor, "k k"],
    H: Float[Tensor, "d d"],
    W: Float[Tensor, "k d"],
    *,
    unit_width: int,
    own: Float[Tensor, " units"],
    damping: float,
) -> Float[Tensor, " units"]:
    """Remove all units, always the cheapest next, and return what each cost at its turn, float64.

    The costs rise from turn to turn (a later unit costs at least what the one before did), so that the units of largest cost
    are those that stay, however many stay.

    Args:
        G: Mean outer product of the inputs.
        H: Sum of the outer products of the gradients, in the unit of ``own``.
        W: Weights, input-major.
        unit_width: Rows that belong to one unit.
        own: Cost of each unit by another estimate, which knows nothing of the others. The share of the unit's input that
            the units left cannot say, ``tr((P_uu)^-1) / tr(G_uu)``, of it is added.
        damping: Ridge on G, relative to its mean diagonal: that of the repair that follows.

    Returns:
        The cost of each unit.

    Raises:
        LinAlgError: A matrix is not finite.

    Cost: ``k^3`` for the inverse, ``k^2 (k + d)`` for the updates.
    """
    units = len(own)
    costs = torch.zeros(units, dtype=torch.float64, device=G.device)
    root = torch.linalg.cholesky(_with_ridge(H.double(), _FLOOR))
    lower = torch.linalg.cholesky(_with_ridge(G.double(), max(damping, _LEAST)))
    inverse, values = torch.cholesky_inverse(lower).float(), (W.double() @ root).float()
    left, highest = torch.arange(units, device=G.device), 0.0
    # Of each unit the cost by the other estimate, for a unit of its input's energy.
    energy = lower.square().sum(1).view(units, unit_width).sum(1).float()
    rate = own.to(energy) / energy.clamp_min(torch.finfo(energy.dtype).tiny)
    taken = max(1, round(units * _AT_ONCE))
    while len(left):
        price = _prices(inverse, values, rate[left], unit_width)
        paid, place = price.topk(min(taken, len(left)), largest=False)
        for cost, unit in zip(paid.tolist(), left[place].tolist(), strict=True):
            highest = costs[unit] = max(cost, highest * (1 + _RISE))
        stays = torch.ones(len(left), dtype=torch.bool, device=G.device)
        stays[place] = False
        inverse, values = _without(inverse, values, stays.repeat_interleave(unit_width))
        left = left[stays]
    return costs


def _with_ridge(matrix: Float[Tensor, "k k"], share: float) -> Float[Tensor, "k k"]:
    diagonal = matrix.diagonal()
    tiny = torch.finfo(matrix.dtype).tiny
    return matrix + torch.diag_embed(torch.full_like(diagonal, share * float(diagonal.mean()) + tiny))


def _prices(
    inverse: Float[Tensor, "k k"], values: Float[Tensor, "k d"], rate: Float[Tensor, " units"], unit_width: int
) -> Float[Tensor, " units"]:
    """Return ``tr(V_u^T (P_uu)^-1 V_u) + r_u tr((P_uu)^-1)`` of each unit."""
    if unit_width == 1:
        return (values.square().sum(1) + rate) / inverse.diagonal()
    count = len(rate)
    blocks = inverse.view(count, unit_width, count, unit_width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    inverses = torch.linalg.inv(blocks.double())
    rows = values.view(count, unit_width, -1).double()
    unsaid = inverses.diagonal(dim1=1, dim2=2).sum(1)
    return ((rows * (inverses @ rows)).sum((1, 2)) + rate * unsaid).float()


def _without(
    inverse: Float[Tensor, "k k"], values: Float[Tensor, "k d"], stays: Tensor
) -> tuple[Float[Tensor, "m m"], Float[Tensor, "m d"]]:
    """Return the inverse of the matrix without some rows and columns, and the values after the others compensated."""
    gone = ~stays
    left, removed = inverse[stays], inverse[gone]
    both = torch.cat([removed[:, stays], values[gone]], 1)
    changes = left[:, gone] @ torch.linalg.solve(removed[:, gone], both)
    return left[:, stays] - changes[:, : len(left)], values[stays] - changes[:, len(left) :]
