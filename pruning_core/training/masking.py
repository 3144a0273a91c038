"""Constraints that hold weights to a support: a fixed one, or one that is chosen anew at every step (SR-STE)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning_core.patterns.project import Projection
from pruning_core.shapes import Bool, Float
from pruning_core.training.constraint import Moment, Unconstrained, Weights


def project(weight: Float[Tensor, "d k"], projection: Projection) -> Bool[Tensor, "d k"]:
    """Return the support of the Euclidean projection of a weight matrix, output-major."""
    return projection.support(weight.detach().float().T.square()).T


class FixedSupport(Unconstrained):
    """Fine-tuning on a fixed support: that of the initial weights, or of their projection.

    Args:
        weights: The constrained weights.
        projection: Chooses the support when the phase begins; None: the weights that are then nonzero.
    """

    phase = "fixed"

    def __init__(self, weights: Weights, projection: Projection | None = None) -> None:
        super().__init__(weights)
        self._projection = projection
        self._supports: dict[str, Tensor] = {}

    def begin(self, _steps: int, /) -> None:
        """Choose the supports, and prune the weights to them."""
        for name, weight in self.weights.items():
            self._supports[name] = weight.detach() != 0 if self._projection is None else project(weight, self._projection)
        self.finish()

    def after_step(self, _moment: Moment, /) -> None:
        """Set pruned weights to zero again."""
        self.finish()

    def finish(self) -> None:
        """Set the weights outside of the supports to zero."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.mul_(self._supports[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return the supports."""
        return dict(self._supports)

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore the supports."""
        self._supports = dict(tensors)


class SrSte(Unconstrained):
    """SR-STE, Zhou et al. 2021 (arXiv 2102.04010, equation 9): sparse forward pass, dense weights, decay of pruned weights.

    The forward pass runs on ``W o M`` with M the support of the present W's projection. Its gradient goes to all of W, and
    pruned weights decay: ``W -= lambda (1 - M) o W``. Deviation: the paper adds the decay to the gradient, for SGD. Under Adam
    the adaptive scale would turn it into a constant pull, so here it is decoupled, as in AdamW, and follows the learning rate.

    Args:
        weights: The constrained weights.
        projection: The projection onto the pattern.
        decay: lambda at the peak learning rate.
    """

    phase = "sr-ste"

    def __init__(self, weights: Weights, projection: Projection, decay: float) -> None:
        super().__init__(weights)
        self._projection, self._decay = projection, decay
        self._supports: dict[str, Tensor] = {}
        self._dense: dict[str, Tensor] = {}
        self._changed = 0.0

    def before_forward(self, _moment: Moment, /) -> None:
        """Compute the supports of the present weights, and mask the weights."""
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
        """Restore the dense weights, which take the gradient of the masked ones."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self._dense.pop(name))

    def after_step(self, moment: Moment, /) -> None:
        """Decay the pruned weights."""
        kept = 1 - self._decay * moment.rate / moment.peak
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.mul_(torch.where(self._supports[name], 1.0, kept))

    def finish(self) -> None:
        """Prune the weights to their projection."""
        with torch.no_grad():
            for weight in self.weights.values():
                weight.mul_(project(weight, self._projection))

    def measures(self) -> dict[str, float]:
        """Return the share of weights that entered or left the support in the last step."""
        return {"support_changed": self._changed}

    def tensors(self) -> dict[str, Tensor]:
        """Return the supports, from which the next step counts changes."""
        return dict(self._supports)

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore the supports."""
        self._supports = dict(tensors)
