"""Conjugate gradient for symmetric positive definite systems with many right-hand sides.

Hestenes and Stiefel 1952, in the preconditioned form of Saad, *Iterative Methods for Sparse Linear Systems*, algorithm 9.1;
the iteration of Li, Zhu, Sun 2024 (doi 10.1007/s40747-024-01595-w, section 3.3) when there is no preconditioner and one
right-hand side.

Deviations:
1. All columns advance together with one matrix product a step; a column that has converged is frozen (its step is zero), so
   that it takes no harm from rounding while the others go on.
2. The residual is recomputed from its definition at the end, so that the status speaks of the value, not of the recurrence.
3. A direction of non-positive curvature freezes its column and makes the status ``breakdown``.
4. With a ``support``, residuals and directions are multiplied by it every step: the solve of the problem restricted to each
   column's own support (ALPS, Meng et al. 2024, arXiv 2406.07831, section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.linalg.solution import Solution
from pruning_core.shapes import Bool, Float


def conjugate_gradient(
    A: Float[Tensor, "k k"],
    rhs: Float[Tensor, "k d"],
    x0: Float[Tensor, "k d"],
    *,
    tolerance: float,
    max_iterations: int,
    jacobi: bool,
    support: Bool[Tensor, "k d"] | None = None,
) -> Solution:
    """Solve ``A x = rhs`` for every column, from ``x0``.

    Args:
        A: Symmetric positive definite.
        rhs: Right-hand sides.
        x0: Start; must be zero outside ``support``.
        tolerance: A column has converged when its residual norm is below this times the norm of its right-hand side.
        max_iterations: Upper bound of steps.
        jacobi: Precondition by the diagonal.
        support: Entries that may be non-zero; all of them when None.

    Cost: one (k, k) x (k, d) product a step.
    """

    def project(t: Tensor) -> Tensor:
        return t if support is None else t * support

    inverse = (1 / A.diagonal().clamp_min(torch.finfo(A.dtype).tiny))[:, None] if jacobi else torch.ones_like(A[:, :1])
    rhs = project(rhs)
    goal = tolerance * rhs.norm(dim=0).clamp_min(torch.finfo(A.dtype).tiny)
    x = x0.clone()
    residual = project(rhs - A @ x)
    z = inverse * residual
    direction = z.clone()
    rz = (residual * z).sum(0)
    broken = torch.zeros_like(goal, dtype=torch.bool)
    iterations = 0
    while iterations < max_iterations:
        active = (residual.norm(dim=0) > goal) & ~broken
        if not active.any():
            break
        iterations += 1
        product = project(A @ direction)
        curvature = (direction * product).sum(0)
        broken |= active & ~(curvature > 0)
        active &= ~broken
        step = torch.where(active, rz / torch.where(active, curvature, 1), 0)
        x += step * direction
        residual -= step * product
        z = inverse * residual
        rz_next = (residual * z).sum(0)
        momentum = torch.where(active & (rz > 0), rz_next / torch.where(rz > 0, rz, 1), 0)
        direction = z + momentum * direction
        rz = rz_next
    residual = project(rhs - A @ x)
    if bool(broken.any()) or not torch.isfinite(x).all():
        return Solution(torch.where(torch.isfinite(x), x, x0), "breakdown", iterations)
    # The recurrence and the true residual part by rounding; a factor of ten is where the answer stops being the one asked for.
    converged = bool((residual.norm(dim=0) <= 10 * goal).all())
    return Solution(x, "converged" if converged else "max_iterations", iterations)
