"""Direct solve by Cholesky factorisation: one factor serves every right-hand side.

Deviations from a plain factorisation:
1. One that fails is tried again with a growing multiple of the identity, up to 1e-6 of the mean diagonal, as Gaussian process
   libraries do (linear_operator, ``psd_safe_cholesky``): Grams of dead or duplicate units are singular to rounding. The status
   is then ``jittered`` and the solution says how much was added, since it is another system that was solved.
2. The answer is tried on one combination of the right-hand sides with random signs (Freivalds 1977): a residual above the
   square root of the format's precision makes the status ``stagnated``. A backward stable factorisation has a small residual
   unless the matrix is too ill-conditioned for the format, or the jitter has changed the answer.
3. An answer with a larger residual than ``x0`` is not returned: ``x0`` is the best iterate then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.linalg.solution import Solution, SolveStatus
from pruning_core.machine.finite import is_finite
from pruning_core.shapes import Float

# Relative to the mean diagonal; the first step adds nothing.
_JITTERS = (0.0, 1e-12, 1e-9, 1e-6)


def cholesky_solve(A: Float[Tensor, "k k"], rhs: Float[Tensor, "k d"], x0: Float[Tensor, "k d"]) -> Solution:
    """Solve ``A x = rhs``.

    Args:
        A: Symmetric positive definite.
        rhs: Right-hand sides.
        x0: What a failure gives back.

    Cost: ``k^3 / 3 + 2 k^2 d`` multiply-adds, and ``2 k^2`` for the trial of the answer.
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
