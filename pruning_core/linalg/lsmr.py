"""LSMR on the normal equations: the recovery solver of Kwon et al. 2022, kept as a reference.

Fong and Saunders 2011, *LSMR: An iterative algorithm for sparse least-squares problems*, algorithm 1 without
reorthogonalisation. Kwon's code applies it to ``A dx = rhs - A x0`` with ``damp=1``. Since A is a Gram matrix already, the
condition number of the data is squared twice. This is kept, because a reference is there for parity.

Deviations:
1. All right-hand sides advance together, each with its own scalars, as a batch of independent runs.
2. A step out of the format's range is not taken. The column is frozen at the iterate before, which is its best, since
   ``||A^T r||`` falls with every step (Fong and Saunders, section 1.3). The status is ``breakdown``.
3. The estimate of ``||A^T r||`` that ends the iteration is compared with the value from its definition. Without
   reorthogonalisation the two may part; the status is then ``stagnated``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.linalg.solution import Solution, SolveStatus
from pruning_core.machine.finite import is_finite
from pruning_core.shapes import Float


def lsmr(
    A: Float[Tensor, "k k"],
    rhs: Float[Tensor, "k d"],
    x0: Float[Tensor, "k d"],
    *,
    damp: float,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Minimise ``||A dx - (rhs - A x0)||^2 + damp^2 ||dx||^2`` for every column, and return ``x0 + dx``.

    The iteration stops when every column's estimate of ``||A^T r||`` has fallen to ``tolerance`` times its first value.

    Cost: two (k, k) x (k, d) products a step.
    """
    if not (is_finite(A) and is_finite(rhs) and is_finite(x0)):
        return Solution(torch.where(x0.isfinite(), x0, 0), "non_finite", 0)
    u = rhs - A @ x0
    beta = u.norm(dim=0)
    u = _normalised(u, beta)
    v = A.T @ u
    alpha = v.norm(dim=0)
    v = _normalised(v, alpha)
    zeta_bar, alpha_bar = alpha * beta, alpha.clone()
    rho, rho_bar, c_bar = torch.ones_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha)
    s_bar = torch.zeros_like(alpha)
    h, h_bar, dx = v.clone(), torch.zeros_like(v), torch.zeros_like(v)
    goal = tolerance * zeta_bar.abs()
    broken = ~goal.isfinite()
    iterations = 0
    while iterations < max_iterations and bool(((zeta_bar.abs() > goal) & ~broken).any()):
        iterations += 1
        u = A @ v - alpha * u
        beta = u.norm(dim=0)
        u = _normalised(u, beta)
        v = A.T @ u - beta * v
        alpha = v.norm(dim=0)
        v = _normalised(v, alpha)
        alpha_hat = torch.hypot(alpha_bar, torch.full_like(alpha_bar, damp))
        rho_old, rho = rho, torch.hypot(alpha_hat, beta)
        c, s = alpha_hat / _safe(rho), beta / _safe(rho)
        theta, alpha_bar = s * alpha, c * alpha
        rho_bar_old, theta_bar = rho_bar, s_bar * rho
        rho_bar = torch.hypot(c_bar * rho, theta)
        c_bar, s_bar = c_bar * rho / _safe(rho_bar), theta / _safe(rho_bar)
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar
        h_bar = h - (theta_bar * rho / _safe(rho_old * rho_bar_old)) * h_bar
        moved = dx + (zeta / _safe(rho * rho_bar)) * h_bar
        broken |= ~(moved.isfinite().all(dim=0) & zeta_bar.isfinite())
        dx = torch.where(broken, dx, moved)
        h = v - (theta / _safe(rho)) * h
    x = x0 + dx
    broken |= ~x.isfinite().all(dim=0)
    x = torch.where(x.isfinite().all(dim=0), x, x0)
    gradient = (A.T @ (rhs - A @ x) - damp**2 * dx).norm(dim=0)
    status: SolveStatus = "converged"
    if bool(broken.any()):
        status = "breakdown"
    elif bool((zeta_bar.abs() > goal).any()):
        status = "max_iterations"
    elif bool((gradient > _reach(goal, A, x, damp)).any()):
        status = "stagnated"
    return Solution(x, status, iterations)


def _reach(goal: Float[Tensor, " d"], A: Float[Tensor, "k k"], x: Float[Tensor, "k d"], damp: float) -> Float[Tensor, " d"]:
    """Return the largest ``||A^T r||`` that counts as converged.

    It is ten times the larger of the goal and the rounding error of ``A^T A x``.
    """
    size = float(A.norm())
    return 10 * torch.maximum(goal, torch.finfo(A.dtype).eps * (size**2 + damp**2) * x.norm(dim=0))


def _safe(t: Tensor) -> Tensor:
    """Replace zeros by ones, so that a column that has reached its solution exactly does not divide by zero."""
    return torch.where(t == 0, torch.ones_like(t), t)


def _normalised(vectors: Tensor, norms: Tensor) -> Tensor:
    return vectors / _safe(norms)
