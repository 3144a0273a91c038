"""Options that all methods share which set weights to zero and refit what stays. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Iterations = Annotated[int, Field(ge=1, le=1000, description="Upper bound of ADMM steps a matrix.")]
RefitSteps = Annotated[
    int | None,
    Field(
        ge=1,
        le=1000,
        description="Steps of conjugate gradient on what stays; null: 6 from where ADMM ended, 20 from dense weights.",
    ),
]
Damping = Annotated[float, Field(gt=0, le=10, description="Ridge, relative to the mean diagonal of the Gram.")]


def refit_steps(given: int | None, selection: str) -> int:
    """Give the steps of a refit: those that were asked for, or what the selection leaves to do."""
    return given or (6 if selection == "admm" else 20)
