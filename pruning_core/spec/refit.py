"""Options that are common to all methods that set weights to zero and refit the others. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Iterations = Annotated[int, Field(ge=1, le=1000, description="Largest number of ADMM steps for each matrix.")]
RefitSteps = Annotated[
    int | None,
    Field(
        ge=1,
        le=1000,
        description="Steps of conjugate gradient that refit the kept weights; null: 6 from ADMM's weights, 20 from dense ones.",
    ),
]
Damping = Annotated[float, Field(gt=0, le=10, description="Ridge, relative to the mean diagonal of the Gram matrix.")]


def refit_steps(given: int | None, selection: str) -> int:
    """Return the number of refit steps: the given one, or else the default for the selection."""
    return given or (6 if selection == "admm" else 20)
