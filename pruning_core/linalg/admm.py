"""ADMM for least squares under a sparsity pattern: which weights to keep, found on the Gram of a layer's inputs.

``min over W of 1/2 tr(W^T H W) - tr(W^T R)`` with W in a pattern, H and R the Gram and the cross moments with a ridge. Boyd et
al. 2011 for the splitting ``W = D, D in the pattern``; ALPS, Meng et al. 2024 (arXiv 2406.07831, section 3.1 and algorithm 1),
for the iteration on layers of Transformers and the schedule of rho:

    W = (H + rho I)^-1 (R - V + rho D),   D = P(W + V / rho),   V += rho (W - D)

Deviations: (1) the pattern is any projection, not only a number of weights. (2) R is that of a target of its own (the dense
model's outputs) and need not be H times the dense weights. (3) Instead of one eigendecomposition, ``H + rho I`` is inverted
through a Cholesky factor whenever rho changes: an eigendecomposition of 1536 takes as long as all iterations together, and a
step then needs one product instead of two. (4) rho doubles every four steps and twelve steps are all,
where ALPS lets it grow by 1.1 to 1.3 every three steps until the support stands still: on nine Grams of MiniLM the residual
after the refit of 2:4 is 2.4 % above that of 60 such steps, in a fifth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.linalg.solution import SolveStatus
from pruning_core.patterns.project import Projection
from pruning_core.shapes import Bool, Float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the penalty grows, and when to stop.

    Attributes:
        rho: Its first value, for H of unit diagonal.
        every: Iterations between two values.
        growth: What it is multiplied by.
        iterations: Upper bound.
    """

    rho: float = 0.1
    every: int = 4
    growth: float = 2.0
    iterations: int = 12


@dataclass(frozen=True, slots=True)
class Found:
    """What ADMM found.

    Attributes:
        support: The pattern's.
        value: The weights on it, D.
        status: ``converged`` (the support no longer changes), ``max_iterations``, or ``breakdown`` (H has no factor; support
            and value are those of before).
        iterations: Steps taken.
        primal: ``||W - D|| / ||D||`` at the end.
        dual: ``rho ||D - D_before|| / ||V||`` of the last step.
    """

    support: Bool[Tensor, "k d"]
    value: Float[Tensor, "k d"]
    status: SolveStatus
    iterations: int
    primal: float
    dual: float


def find_support(
    H: Float[Tensor, "k k"],
    R: Float[Tensor, "k d"],
    start: Float[Tensor, "k d"],
    projection: Projection,
    schedule: Schedule,
) -> Found:
    """Run ADMM from dense weights.

    Args:
        H: Symmetric positive definite, unit diagonal.
        R: Right-hand sides.
        start: Dense weights in the same scale.
        projection: The pattern.
        schedule: Of the penalty.

    Cost: one (k, k) x (k, d) product a step, ``k^3`` for each value of rho.
    """
    support = projection.support(start.square())
    kept, dual_price, rho = start * support, torch.zeros_like(start), schedule.rho  # D and V
    inverse = _inverse(H, rho)
    before, done = support, 0
    status: SolveStatus = "max_iterations"
    primal = dual = 0.0
    while inverse is not None and done < schedule.iterations:
        W = inverse @ (R - dual_price + rho * kept)
        moved = W + dual_price / rho
        support = projection.support(moved.square())
        previous, kept = kept, moved * support
        dual_price += rho * (W - kept)
        done += 1
        last = done == schedule.iterations
        if last or done % schedule.every == 0:
            primal = float((W - kept).norm()) / (float(kept.norm()) or 1.0)
            dual = rho * float((kept - previous).norm()) / (float(dual_price.norm()) or 1.0)
        if last or done % schedule.every:
            continue
        if torch.equal(support, before):
            status = "converged"
            break
        before = support
        rho *= schedule.growth
        inverse = _inverse(H, rho)
    if inverse is None:
        status = "breakdown"
    return Found(support, kept, status, done, primal, dual)


def _inverse(H: Float[Tensor, "k k"], rho: float) -> Float[Tensor, "k k"] | None:
    shifted = H.clone()
    shifted.diagonal().add_(rho)
    factor, info = torch.linalg.cholesky_ex(shifted)
    return None if int(info) else torch.cholesky_inverse(factor)
