"""The answer of a solver: value, status and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from torch import Tensor

from pruning_core.shapes import Float

SolveStatus = Literal["converged", "jittered", "stagnated", "max_iterations", "breakdown", "non_finite"]


@dataclass(frozen=True, slots=True)
class Solution:
    """Result of a solve. Failure is a status; the value is then the best iterate. The value is always finite.

    Attributes:
        value: (k, d).
        status: One of:
            ``converged``;
            ``jittered``: the matrix is singular to rounding, so another system was solved, with a multiple of the identity
            added;
            ``stagnated``: the solver has finished, but the residual from its definition is too large, because the condition
            number is beyond the format's precision;
            ``max_iterations``: the tolerance was not reached;
            ``breakdown``: the matrix is not positive definite, or numbers left the format's range;
            ``non_finite``: NaN or infinity in the arguments.
        iterations: Number of steps; 0 for direct solvers.
        jitter: Amount added to the diagonal, relative to its mean.
    """

    value: Float[Tensor, "k d"]
    status: SolveStatus
    iterations: int
    jitter: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there is no answer: the value is the start of the solve, or not far from it."""
        return is_failure(self.status)


def is_failure(status: SolveStatus) -> bool:
    """Return whether a status means that there is no answer. A rough answer counts as one: the caller may still judge it."""
    match status:
        case "breakdown" | "non_finite":
            return True
        case "converged" | "jittered" | "stagnated" | "max_iterations":
            return False
        case _:
            assert_never(status)
