"""ADMM for least squares under a sparsity pattern: which weights to keep, found on the Gram matrix of a layer's inputs.

``min over W of 1/2 tr(W^T H W) - tr(W^T R)`` with W in a pattern; H and R are the Gram matrix and the cross moments with a
ridge. The splitting ``W = D, D in the pattern`` follows Boyd et al. 2011. The iteration on layers of Transformers and the
schedule of rho follow ALPS, Meng et al. 2024 (arXiv 2406.07831, section 3.1 and algorithm 1):

    W = (H + rho I)^-1 (R - V + rho D),   D = P(W + V / rho),   V += rho (W - D)

Deviations: (1) The pattern is any projection, not only a number of weights. (2) R may come from any target (here the dense
model's outputs) and need not be H times the dense weights. (3) ``H + rho I`` is inverted through a Cholesky factor whenever
rho changes, where ALPS makes one eigendecomposition: for 1536 inputs that takes as long as all iterations together, and with
the inverse a step needs one product instead of two. (4) rho doubles every four steps, for twelve steps at most. ALPS lets it
grow by 1.1 to 1.3 every three steps until the support no longer changes. On nine Gram matrices of MiniLM under 2:4, the
residual after the refit is 2.4 % above that of 60 such steps, in a fifth of the time.
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
    """Schedule of the penalty rho, and the number of iterations.

    Attributes:
        rho: First value, for H of unit diagonal.
        every: Iterations from one value to the next.
        growth: Factor between two values.
        iterations: Largest number of iterations.
    """

    rho: float = 0.1
    every: int = 4
    growth: float = 2.0
    iterations: int = 12


@dataclass(frozen=True, slots=True)
class Found:
    """Result of ADMM.

    Attributes:
        support: Weights to keep; it satisfies the pattern.
        value: D, zero outside the support.
        status: ``converged`` (the support no longer changes), ``max_iterations``, or ``breakdown`` (``H + rho I`` has no
            factor; support and value are those of the step before).
        iterations: Number of steps.
        primal: Primal residual ``||W - D|| / ||D||``, as last computed.
        dual: Dual residual ``rho ||D - D_before|| / ||V||``, as last computed.
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
        projection: Projection onto the pattern.
        schedule: Schedule of the penalty.

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
