"""The answer of a solver: a value, how it came about, and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from torch import Tensor

from pruning_core.shapes import Float

SolveStatus = Literal["converged", "jittered", "stagnated", "max_iterations", "breakdown", "non_finite"]


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solve returns. Failure is a status; the value is then the best iterate, finite in every case.

    Attributes:
        value: (k, d).
        status: ``converged``; ``jittered`` (the matrix is singular to rounding, and was factorised with a multiple of the
            identity added: another system was solved); ``stagnated`` (the solver is done, and the residual, computed from its
            definition, is not as small as that should make it: the condition number is beyond the format's digits);
            ``max_iterations`` (the tolerance was not reached); ``breakdown`` (the matrix is not positive definite, or numbers
            left the format's range); ``non_finite`` (NaN or infinity in what was given).
        iterations: Steps taken; 0 for direct solvers.
        jitter: What was added to the diagonal, relative to its mean.
    """

    value: Float[Tensor, "k d"]
    status: SolveStatus
    iterations: int
    jitter: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the value answers nothing: it is where the solve started, or not far from there."""
        return is_failure(self.status)


def is_failure(status: SolveStatus) -> bool:
    """Tell statuses without an answer from those with one, however rough: whoever asked may still judge that."""
    match status:
        case "breakdown" | "non_finite":
            return True
        case "converged" | "jittered" | "stagnated" | "max_iterations":
            return False
        case _:
            assert_never(status)
