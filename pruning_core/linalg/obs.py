"""Pruning by the optimal brain surgeon, input by input: SparseGPT, Frantar and Alistarh 2023 (arXiv 2301.00774, algorithm 1).

Inputs are pruned one after the other. The weights of an input outside its group's support become zero, and the weights of all
later inputs compensate for them through the inverse Hessian. This is a baseline; our own selection is
`pruning_core.linalg.admm`.

Deviation: groups are as wide as the pattern's blocks. Without a pattern they have 128 inputs, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.patterns.project import Projection
from pruning_core.shapes import Bool, Float

# Inputs in a group, which shares one choice of support, if the pattern does not say: the paper's block size.
GROUP = 128


@dataclass(frozen=True, slots=True)
class Pruned:
    """The support, and the compensated weights on it."""

    support: Bool[Tensor, "k d"]
    value: Float[Tensor, "k d"]


def prune_by_obs(H: Float[Tensor, "k k"], W: Float[Tensor, "k d"], projection: Projection, group: int) -> Pruned | None:
    """Prune a matrix, and compensate for the removed weights. Return None if the Hessian has no factor.

    Args:
        H: Hessian: the Gram matrix of the inputs, with a ridge.
        W: Dense weights.
        projection: Projection onto the pattern, applied to one group of inputs at a time.
        group: Number of inputs in a group, a multiple of the pattern's width.

    Cost: ``k^3`` for the factor, ``k^2 d`` for the updates.
    """
    lower, info = torch.linalg.cholesky_ex(H)
    if int(info):
        return None
    upper, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(info):
        return None
    value, kept = W.clone(), torch.ones_like(W, dtype=torch.bool)
    scale = upper.diagonal()
    for start in range(0, len(W), group):
        stop = min(start + group, len(W))
        chosen = projection.support((value[start:stop] / scale[start:stop, None]).square())
        kept[start:stop] = chosen
        errors = torch.empty(stop - start, W.shape[1], dtype=W.dtype, device=W.device)
        for i in range(start, stop):  # each update changes what the next input of the group starts from
            errors[i - start] = value[i] * ~chosen[i - start] / scale[i]
            value[i:stop] -= upper[i, i:stop, None] * errors[i - start]
        value[stop:] -= upper[start:stop, stop:].T @ errors
    return Pruned(kept, value * kept)
