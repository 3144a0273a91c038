"""Constraints on trained weights: a method's part of the training loop.

The methods of the trained tiers differ in their constraint alone: ADMM moves weights towards a pattern, SR-STE masks the
forward pass, a fixed support masks the weights after each step, group Lasso shrinks groups. A constraint works in place on the
weights that it was given. It must be deterministic: several processes train side by side and exchange only gradients.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Weights by module path, output-major (d, k): a parameter, or the transposed view of one that is stored input-major.
Weights = Mapping[str, Tensor]


def gradient_of(weight: Tensor) -> Tensor:
    """Return a weight's gradient in the weight's own orientation, to be changed in place."""
    base = weight._base  # pyright: ignore[reportPrivateUsage] - torch's only name for the tensor that a view belongs to
    gradient = weight.grad if base is None else base.grad
    assert gradient is not None, "the loop has run the backward pass"
    return gradient if base is None else gradient.T


@dataclass(frozen=True, slots=True)
class Moment:
    """Position in the training.

    Attributes:
        step: Index of the step, from 0.
        steps: Number of steps.
        rate: Learning rate of the step.
        peak: Largest learning rate of the schedule.
    """

    step: int
    steps: int
    rate: float
    peak: float


class Constraint(Protocol):
    """A constraint on the trained weights.

    The loop calls ``begin`` once; ``before_forward``, ``before_step`` and ``after_step`` in each step; ``at_epoch`` after the
    last step of each epoch; ``finish`` at the end.
    """

    @property
    def phase(self) -> str:
        """Name of the present phase, for reports."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the weights inside `applied` could be written; only then can they be the best so far."""
        ...

    def begin(self, steps: int, /) -> None:
        """Prepare for a number of steps. It is called again after a resume, before `restore`."""
        ...

    def before_forward(self, moment: Moment, /) -> None:
        """Change the weights for this step's forward and backward pass."""
        ...

    def before_step(self, moment: Moment, /) -> None:
        """Undo `before_forward`, and add to the gradients, which are summed over all devices and clipped already."""
        ...

    def after_step(self, moment: Moment, /) -> None:
        """Change the weights after the optimiser's step: projections, proximal steps, dual updates."""
        ...

    def at_epoch(self, epoch: int, /) -> None:
        """React to the end of an epoch; ``epoch`` counts from 1."""
        ...

    def finish(self) -> None:
        """Bring the weights into the form in which they will be written."""
        ...

    def applied(self) -> AbstractContextManager[None]:
        """Hold the weights as `finish` would leave them now, while the context is open: they are judged, and kept if best."""
        ...

    def measures(self) -> dict[str, float]:
        """Return figures of the present state for the report's curves: rho and residuals, zero groups, a penalty."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the state other than the weights; it is saved with a checkpoint."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore a saved state."""
        ...


class Unconstrained:
    """Training without a constraint, and the base of constraints, which override what they need.

    Args:
        weights: The constrained weights.
    """

    phase = "train"
    ready = True

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def begin(self, steps: int, /) -> None:
        """Prepare nothing."""

    def before_forward(self, moment: Moment, /) -> None:
        """Change nothing."""

    def before_step(self, moment: Moment, /) -> None:
        """Add nothing."""

    def after_step(self, moment: Moment, /) -> None:
        """Project nothing."""

    def at_epoch(self, epoch: int, /) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Leave the weights as they are."""

    @contextmanager
    def applied(self) -> Generator[None]:
        """Call `finish`, and restore the weights when the context closes."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.finish()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(kept[name])

    def measures(self) -> dict[str, float]:
        """Return no figures."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore no state."""
