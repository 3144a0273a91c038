"""Direct solve by Cholesky factorisation: one factor serves every right-hand side.

Deviations from a plain factorisation:
1. A factorisation that fails is tried again with a growing multiple of the identity added, up to 1e-6 of the mean diagonal, as
   Gaussian process libraries do (linear_operator, ``psd_safe_cholesky``): Gram matrices of dead or duplicate units are singular
   to rounding. That solves another system, so the status is ``jittered`` and the solution holds the amount added.
2. The answer is checked on one combination of the right-hand sides with random signs (Freivalds 1977). If its residual is
   above the square root of the format's precision, the status is ``stagnated``. A backward stable factorisation has a small
   residual, unless the matrix is too ill-conditioned for the format or the jitter has changed the answer.
3. If a stagnated answer has a larger residual than ``x0``, ``x0`` is returned: it is the best iterate then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.linalg.solution import Solution, SolveStatus
from pruning_core.machine.finite import is_finite
from pruning_core.shapes import Float

# Amounts added to the diagonal, relative to its mean; the first attempt adds nothing.
_JITTERS = (0.0, 1e-12, 1e-9, 1e-6)


def cholesky_solve(A: Float[Tensor, "k k"], rhs: Float[Tensor, "k d"], x0: Float[Tensor, "k d"]) -> Solution:
    """Solve ``A x = rhs``.

    Args:
        A: Symmetric positive definite.
        rhs: Right-hand sides.
        x0: Value to return if there is no factor, or if its residual is smaller than that of a stagnated answer.

    Cost: ``k^3 / 3 + 2 k^2 d`` multiply-adds, and ``2 k^2`` to check the answer.
    """
    if not (is_finite(A) and is_finite(rhs) and is_finite(x0)):
        return Solution(torch.where(x0.isfinite(), x0, 0), "non_finite", 0)
    scale = float(A.diagonal().mean())
    for jitter in _JITTERS:
        shifted = A
        if jitter:
            shifted = A.clone()
            shifted.diagonal().add_(jitter * scale)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if int(info) == 0:
            x = torch.cholesky_solve(rhs, factor)
            if is_finite(x):
                return _tried(A, rhs, x0, x, jitter)
    return Solution(x0, "breakdown", 0)


def _tried(A: Float[Tensor, "k k"], rhs: Float[Tensor, "k d"], x0: Tensor, x: Tensor, jitter: float) -> Solution:
    signs = torch.randint(0, 2, (rhs.shape[1],), generator=torch.Generator().manual_seed(0)).to(rhs) * 2 - 1
    wanted = rhs @ signs
    found, start = (float((wanted - A @ (own @ signs)).norm()) for own in (x, x0))
    status: SolveStatus = "jittered" if jitter else "converged"
    if not found <= torch.finfo(A.dtype).eps ** 0.5 * float(wanted.norm()):
        status = "stagnated"
        x = x if found < start else x0
    return Solution(x, status, 0, jitter)
