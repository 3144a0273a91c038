"""What a method adds to the training loop: the loop knows the loss, a constraint knows which weights may stay.

The methods of the trained tiers differ in their constraint alone: ADMM moves weights towards a pattern, SR-STE masks the
forward pass, a fixed support masks what a step has written, group lasso shrinks. A constraint works in place on the weights it
was given, and must do the same from the same state: several processes train side by side and only gradients are exchanged.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# By module path, output-major (d, k): a parameter, or the transposed view of one that is stored input-major.
Weights = Mapping[str, Tensor]


def gradient_of(weight: Tensor) -> Tensor:
    """Give a weight's gradient in the weight's own orientation, to be changed in place."""
    base = weight._base  # pyright: ignore[reportPrivateUsage] - torch's only name for what a view is one of
    gradient = weight.grad if base is None else base.grad
    assert gradient is not None, "the loop has run the backward pass"
    return gradient if base is None else gradient.T


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training is.

    Attributes:
        step: Index of the step, from 0.
        steps: How many there will be.
        rate: Learning rate of the step.
        peak: Largest learning rate of the schedule.
    """

    step: int
    steps: int
    rate: float
    peak: float


class Constraint(Protocol):
    """Called by the loop in this order: ``begin`` once, each step's three, ``at_epoch`` after an epoch's last, ``finish``."""

    @property
    def phase(self) -> str:
        """Name what is going on, for reports."""
        ...

    @property
    def ready(self) -> bool:
        """Whether what `applied` holds could be written: only then can it be the best so far."""
        ...

    def begin(self, steps: int, /) -> None:
        """Learn how many steps there will be; called again after a resume, before `restore`."""
        ...

    def before_forward(self, moment: Moment, /) -> None:
        """Change the weights for this step's forward and backward pass."""
        ...

    def before_step(self, moment: Moment, /) -> None:
        """Undo that, and add to the gradients, which are summed over all devices and clipped."""
        ...

    def after_step(self, moment: Moment, /) -> None:
        """Change what the optimiser has written: projections, proximal steps, dual updates."""
        ...

    def at_epoch(self, epoch: int, /) -> None:
        """Look at an epoch's end; ``epoch`` counts from 1."""
        ...

    def finish(self) -> None:
        """Leave the weights as they are to be written."""
        ...

    def applied(self) -> AbstractContextManager[None]:
        """Hold the weights as `finish` would leave them now, while the context is open. They are judged, and kept if best."""
        ...

    def measures(self) -> dict[str, float]:
        """Give figures of the present state for the report's curve: rho and residuals, zero groups, a penalty."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Give the state beside the weights; saved with a checkpoint."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Take a saved state up."""
        ...


class Unconstrained:
    """Plain training, and the base of what constrains: a method overrides what it needs.

    Args:
        weights: The weights that the constraint is about.
    """

    phase = "train"
    ready = True

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def begin(self, steps: int, /) -> None:
        """Nothing to plan."""

    def before_forward(self, moment: Moment, /) -> None:
        """Nothing to change."""

    def before_step(self, moment: Moment, /) -> None:
        """Nothing to add."""

    def after_step(self, moment: Moment, /) -> None:
        """Nothing to project."""

    def at_epoch(self, epoch: int, /) -> None:
        """Nothing to look at."""

    def finish(self) -> None:
        """The weights are what they are."""

    @contextmanager
    def applied(self) -> Generator[None]:
        """Finish, and put the weights back afterwards."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.finish()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(kept[name])

    def measures(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """No state."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """No state."""
