"""Constraints that hold weights to a support: fixed, or found anew at every step as SR-STE does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning_core.patterns.project import Projection
from pruning_core.shapes import Bool, Float
from pruning_core.training.constraint import Moment, Unconstrained, Weights


def project(weight: Float[Tensor, "d k"], projection: Projection) -> Bool[Tensor, "d k"]:
    """Give the support of the Euclidean projection of a weight matrix, output-major."""
    return projection.support(weight.detach().float().T.square()).T


class FixedSupport(Unconstrained):
    """Fine-tuning of what stays: the support is that of the weights when training begins, or of their projection.

    Args:
        weights: To be held.
        projection: Chooses the support when training begins; what is not zero then when None.
    """

    phase = "fixed"

    def __init__(self, weights: Weights, projection: Projection | None = None) -> None:
        super().__init__(weights)
        self._projection = projection
        self._supports: dict[str, Tensor] = {}

    def begin(self, _steps: int, /) -> None:
        """Choose the support, and prune."""
        for name, weight in self.weights.items():
            self._supports[name] = weight.detach() != 0 if self._projection is None else project(weight, self._projection)
        self.finish()

    def after_step(self, _moment: Moment, /) -> None:
        """Take back what the step has given to pruned weights."""
        self.finish()

    def finish(self) -> None:
        """Set pruned weights to zero."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.mul_(self._supports[name])

    def tensors(self) -> dict[str, Tensor]:
        """Give the supports."""
        return dict(self._supports)

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Take the supports up."""
        self._supports = dict(tensors)


class SrSte(Unconstrained):
    """SR-STE, Zhou et al. 2021 (arXiv 2102.04010, equation 9): sparse forward, dense weights, decay of what is pruned.

    The forward pass runs on ``W o M``, M the projection's support of the present W; its gradient goes to all of W, and pruned
    weights decay: ``W -= lambda (1 - M) o W``. Deviation: there the decay is added to the gradient, for SGD; under Adam the
    adaptive scale would make a constant pull of it, so that it is decoupled, as in AdamW, and follows the learning rate.

    Args:
        weights: To be held.
        projection: The pattern.
        decay: lambda at the peak of the learning rate.
    """

    phase = "sr-ste"

    def __init__(self, weights: Weights, projection: Projection, decay: float) -> None:
        super().__init__(weights)
        self._projection, self._decay = projection, decay
        self._supports: dict[str, Tensor] = {}
        self._dense: dict[str, Tensor] = {}
        self._changed = 0.0

    def before_forward(self, _moment: Moment, /) -> None:
        """Find the supports anew, and mask."""
        changed, total = 0, 0
        with torch.no_grad():
            for name, weight in self.weights.items():
                support = project(weight, self._projection)
                if name in self._supports:
                    changed += int((support != self._supports[name]).sum())
                total += weight.numel()
                self._supports[name], self._dense[name] = support, weight.detach().clone()
                weight.mul_(support)
        self._changed = changed / total

    def before_step(self, _moment: Moment, /) -> None:
        """Put the dense weights back: the gradient at the masked ones is theirs."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self._dense.pop(name))

    def after_step(self, moment: Moment, /) -> None:
        """Let pruned weights decay."""
        kept = 1 - self._decay * moment.rate / moment.peak
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.mul_(torch.where(self._supports[name], 1.0, kept))

    def finish(self) -> None:
        """Prune."""
        with torch.no_grad():
            for weight in self.weights.values():
                weight.mul_(project(weight, self._projection))

    def measures(self) -> dict[str, float]:
        """Give the share of the weights that the last step's support has gained or lost."""
        return {"support_changed": self._changed}

    def tensors(self) -> dict[str, Tensor]:
        """Give the supports: what has changed is counted from them."""
        return dict(self._supports)

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Take the supports up."""
        self._supports = dict(tensors)
