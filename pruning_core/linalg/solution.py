"""The problem that every solver answers, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pruning_core.shapes import Float

SolveStatus = Literal["converged", "max_iterations", "breakdown"]


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solve returns. Failure is a status; the value is then the best iterate, finite in every case.

    Attributes:
        value: (k, d).
        status: ``converged``, ``max_iterations`` (tolerance not reached) or ``breakdown`` (matrix not positive definite,
            or numbers no longer finite).
        iterations: Steps taken; 0 for direct solvers.
    """

    value: Float[Tensor, "k d"]
    status: SolveStatus
    iterations: int


def relative_residual(A: Float[Tensor, "k k"], x: Float[Tensor, "k d"], rhs: Float[Tensor, "k d"]) -> float:
    """``||rhs - A x||_F / ||rhs||_F``; the absolute norm where the right-hand side is zero."""
    scale = float(rhs.norm()) or 1.0
    return float((rhs - A @ x).norm()) / scale
