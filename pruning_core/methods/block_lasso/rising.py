"""A group Lasso whose threshold rises: only groups near it are penalised, so that the others keep their values.

The paper's penalty shrinks all groups from the first step. With few steps that decides by the norms of the dense weights alone:
in the whole phase a gradient moves a weight by a fraction of what the penalty takes, and what survives has lost its values too.
Here the share of zeros rises to the target's by a cubic (Zhu, Gupta 2017, arXiv 1710.01878, equation 1), and in each window
between two milestones lambda is such that a group at the present threshold reaches zero if no gradient opposes it. A group that
the loss defends leaves the window as it was, and the next candidates are others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning_core.methods.block_lasso.penalty import GroupLasso, norm_at
from pruning_core.training.constraint import Moment

# Groups up to so many times the threshold are penalised: those just above it decide by their gradients which of them go.
_NEAR = 1.25


class RisingLasso(GroupLasso):
    """The constraint of the Lasso phase with a threshold that rises."""

    def begin(self, steps: int, /) -> None:
        """Place the milestones, and aim at the first share of zeros."""
        self._steps, self._travelled = max(1, steps), 0.0
        # AdamW moves a weight by about the learning rate, and so a group by the root of its size times that.
        spans = torch.cat([self._groups[name].spans(weight).flatten() for name, weight in self.weights.items()])
        norms = torch.cat([self._groups[name].norms(weight).flatten() for name, weight in self.weights.items()])
        self._span = float(spans.median()) / max(norm_at(norms, self._sparsity), 1e-30)
        super().begin(steps)

    def after_step(self, moment: Moment, /) -> None:
        """Shrink the groups near the threshold, and count how far the learning rate could have moved one of them."""
        super().after_step(moment)
        self._travelled += moment.rate * self._span

    def measures(self) -> dict[str, float]:
        """Return the penalty's figures, and the travel.

        That is the distance that the learning rates could move a group, over the norm of one at the target's threshold. Below
        1, gradients have little say in which groups stay.
        """
        return super().measures() | {"travel": self._travelled}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, and the travel."""
        return super().tensors() | {"travel": torch.tensor(self._travelled, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore the state."""
        super().restore(tensors)
        self._travelled = float(tensors["travel"])

    def _reweight(self, step: int) -> None:
        """Aim at the share of zeros at the end of the window that begins: lambda, and penalty weights of the groups near."""
        norms = {name: self._groups[name].norms(weight) for name, weight in self.weights.items()}
        flat = torch.cat([own.flatten() for own in norms.values()])
        window = max(1, self._steps // max(1, len(self._milestones)))
        done = min(1.0, (step + window) / self._steps)
        share = self._sparsity * (1 - (1 - done) ** 3)
        threshold = norm_at(flat, share)
        self.strength = self._options.strength * threshold**2 / (2 * window)
        for name, own in norms.items():
            weighed = 1 / (own + self._epsilon).clamp_min(1e-30)
            self.gammas[name] = weighed * (own <= _NEAR * threshold)
        self.reweighted += 1
