"""Conjugate gradient for symmetric positive definite systems with many right-hand sides.

Hestenes and Stiefel 1952, in the preconditioned form of Saad, *Iterative Methods for Sparse Linear Systems*, algorithm 9.1.
Without a preconditioner and with one right-hand side it is the iteration of Li, Zhu, Sun 2024 (doi
10.1007/s40747-024-01595-w, section 3.3).

Deviations:
1. All columns advance together, with one matrix product a step. A column that has converged is frozen (its step is zero), so
   that rounding cannot harm it while the others go on.
2. The residual is recomputed from its definition at the end, so that the status describes the value, not the recurrence. The
   status is ``stagnated`` if the recurrence has converged and the recomputed residual has not: rounding has parted them.
3. A direction of non-positive curvature, or a step out of the format's range, is not taken. The column is frozen at the
   iterate before, and the status is ``breakdown``.
4. The best iterate is returned (optimistix, ``best_so_far``). In exact arithmetic that is the last one: every step lowers the
   energy ``x^T A x / 2 - x^T rhs`` (Hestenes and Stiefel, theorem 6:1), even where the norm of the residual grows. So no
   iterate is copied. A column that has not converged, and whose energy is above that of ``x0``, is reset to ``x0``.
5. With a ``support``, residuals and directions are multiplied by it every step. This solves the problem restricted to each
   column's own support (ALPS, Meng et al. 2024, arXiv 2406.07831, section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.linalg.solution import Solution, SolveStatus
from pruning_core.machine.finite import is_finite
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
        x0: First iterate; must be zero outside ``support``.
        tolerance: A column has converged when its residual norm is below this times the norm of its right-hand side.
        max_iterations: Largest number of steps.
        jacobi: Whether to precondition by the diagonal.
        support: Entries that may be non-zero; None: all of them.

    Cost: one (k, k) x (k, d) product a step.
    """
    if not (is_finite(A) and is_finite(rhs) and is_finite(x0)):
        return Solution(torch.where(x0.isfinite(), x0, 0), "non_finite", 0)

    def project(t: Tensor) -> Tensor:
        return t if support is None else t * support

    inverse = (1 / A.diagonal().clamp_min(torch.finfo(A.dtype).tiny))[:, None] if jacobi else torch.ones_like(A[:, :1])
    rhs = project(rhs)
    goal = tolerance * rhs.norm(dim=0).clamp_min(torch.finfo(A.dtype).tiny)
    x = x0.clone()
    residual = project(rhs - A @ x)
    start = _energy(x, rhs, residual)
    norms = residual.norm(dim=0)
    z = inverse * residual
    direction = z.clone()
    rz = (residual * z).sum(0)
    broken = ~(goal.isfinite() & norms.isfinite())
    iterations = 0
    while iterations < max_iterations:
        active = (norms > goal) & ~broken
        if not active.any():
            break
        iterations += 1
        product = project(A @ direction)
        curvature = (direction * product).sum(0)
        broken |= active & ~(curvature > 0)
        active &= ~broken
        step = torch.where(active, rz / torch.where(active, curvature, 1), 0)
        moved = residual - step * product
        norms = moved.norm(dim=0)
        taken = step * direction
        if not bool(norms.isfinite().all()):
            lost = ~norms.isfinite()
            broken |= lost
            active &= ~lost
            taken = torch.where(active, taken, 0)
            moved, norms = torch.where(lost, residual, moved), torch.where(lost, residual.norm(dim=0), norms)
        x += taken
        residual = moved
        z = inverse * residual
        rz_next = (residual * z).sum(0)
        momentum = torch.where(active & (rz > 0), rz_next / torch.where(rz > 0, rz, 1), 0)
        direction = z + momentum * direction
        rz = rz_next
    residual = project(rhs - A @ x)
    # Rounding parts the recurrence from the true residual. Up to a factor of ten, the answer still counts as converged.
    converged = residual.norm(dim=0) <= 10 * goal
    in_range = x.isfinite().all(dim=0)
    better = in_range & (converged | (_energy(x, rhs, residual) <= start))
    stopped = _status(broken | ~in_range, converged, norms > goal)
    return Solution(torch.where(better, x, x0), stopped, iterations)


def _status(broken: Bool[Tensor, " d"], converged: Bool[Tensor, " d"], unfinished: Bool[Tensor, " d"]) -> SolveStatus:
    """Return one status for all columns: the breakdown of any column comes first, then that of unfinished ones."""
    if bool(broken.any()):
        return "breakdown"
    if bool(converged.all()):
        return "converged"
    return "max_iterations" if bool(unfinished.any()) else "stagnated"


def _energy(x: Float[Tensor, "k d"], rhs: Float[Tensor, "k d"], residual: Float[Tensor, "k d"]) -> Float[Tensor, " d"]:
    """Compute ``x^T A x / 2 - x^T rhs`` of each column from its residual, since ``A x = rhs - residual``."""
    return -(x * (rhs + residual)).sum(0) / 2
