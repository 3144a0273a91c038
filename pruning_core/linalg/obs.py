"""Pruning by the optimal brain surgeon, column by column: SparseGPT, Frantar and Alistarh 2023 (arXiv 2301.00774, algorithm 1).

Each input in turn loses the weights that its group's support leaves out, and all later inputs of the same outputs make up for
it with the inverse Hessian. Kept as a baseline; our own solvers follow `pruning_core.linalg.admm`.

Deviation: groups are as wide as the pattern's blocks, and 128 where there is no pattern, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.patterns.project import Projection
from pruning_core.shapes import Bool, Float

# Inputs that share one choice of support where the pattern does not say: the paper's block size.
GROUP = 128


@dataclass(frozen=True, slots=True)
class Pruned:
    """Weights that stay, and which they are; None where the Hessian has no factor."""

    support: Bool[Tensor, "k d"]
    value: Float[Tensor, "k d"]


def prune_by_obs(H: Float[Tensor, "k k"], W: Float[Tensor, "k d"], projection: Projection, group: int) -> Pruned | None:
    """Prune and compensate.

    Args:
        H: Gram of the inputs with its ridge.
        W: Dense weights.
        projection: The pattern; sees one group of inputs at a time.
        group: Inputs of a group, a multiple of the pattern's width.

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
