"""ADMM in training, Wang 2024 (arXiv 2407.08334, section 3): ``min f(W) + g(Z), W = Z`` with g the indicator of a pattern.

The W step is AdamW on the task's loss with the penalty ``rho / 2 ||W - Z + U||^2``. Every few steps ``Z = P(W + U)``, the exact
projection block by block, and ``U += W - Z`` (scaled dual). rho grows from 1e-3 to 1. At the end the weights are ``P(W)``.

Deviations: (1) Under Adam a gradient of any size moves a weight by about the learning rate, so a penalty that is added to the
gradient has a different strength for every weight. ``decoupled`` instead takes the penalty's proximal step after AdamW's step,
scaled by the learning rate's share of its peak: ``W -= rho / (1 + rho) (rate / peak) (W - Z + U)``. (2) rho reaches its last
value whatever the number of steps: with too few updates for a growth of 1.1, it grows faster. (3) When rho grows, the scaled
dual shrinks in proportion, as in Boyd et al. 2011 (section 3.4.1), so that the multiplier does not change. (4) U collects what
the W step has left of ``W - Z + U``, and the proximal steps of a small rho have hardly begun: their sum would wind up until the
projection flips, and with a gradient of zero a kept weight would change by a third. So with the decoupled penalty U waits until
the proximal steps since its last update have together gone nine tenths of the way; Z is updated all the while.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pruning_core.patterns.project import Projection
from pruning_core.training.constraint import Moment, Unconstrained, Weights, gradient_of
from pruning_core.training.masking import project

# Share of the way to Z - U that proximal steps must leave at most before the dual is updated.
_LEFT = 0.1


class Admm(Unconstrained):
    """The constraint of the ADMM phase: penalty, projections and dual updates.

    Args:
        weights: The constrained weights.
        projection: The projection onto the pattern.
        rho: First and last value of the penalty.
        growth: Least growth of rho at each dual update.
        penalty: See `pruning_core.spec.training.PatternTraining`.
    """

    phase = "admm"

    def __init__(
        self,
        weights: Weights,
        projection: Projection,
        *,
        rho: tuple[float, float],
        growth: float,
        penalty: Literal["decoupled", "coupled"],
    ) -> None:
        super().__init__(weights)
        self._projection, self._penalty = projection, penalty
        self._first, self._last = rho
        self._least_growth = growth
        self._every, self._growth, self.rho = 1, growth, self._first
        self.Z: dict[str, Tensor] = {}
        self.U: dict[str, Tensor] = {}
        self._primal = self._dual = 0.0
        self._left = 1.0  # share of the way to Z - U that the proximal steps since the last dual update have left

    def begin(self, steps: int, /) -> None:
        """Schedule the updates such that rho reaches its last value, and start from ``Z = P(W), U = 0``."""
        wanted = max(1, math.ceil(math.log(self._last / self._first) / math.log(self._least_growth)))
        self._every = max(1, steps // (wanted + 1))
        updates = max(1, steps // self._every - 1)
        self._growth = max(self._least_growth, (self._last / self._first) ** (1 / updates))
        self.rho = self._first
        for name, weight in self.weights.items():
            self.Z[name] = weight.detach() * project(weight, self._projection)
            self.U[name] = torch.zeros_like(self.Z[name])

    def before_step(self, _moment: Moment, /) -> None:
        """Add the penalty's gradient, ``rho (W - Z + U)``, if the penalty is coupled."""
        if self._penalty != "coupled":
            return
        with torch.no_grad():
            for name, weight in self.weights.items():
                gradient_of(weight).add_(self._offset(name), alpha=self.rho)

    def after_step(self, moment: Moment, /) -> None:
        """Take the proximal step if the penalty is decoupled; update Z and U if an update is due."""
        with torch.no_grad():
            if self._penalty == "decoupled":
                share = self.rho / (1 + self.rho) * moment.rate / moment.peak
                self._left *= 1 - share
                for name, weight in self.weights.items():
                    weight.sub_(self._offset(name), alpha=share)
            if (moment.step + 1) % self._every == 0:
                self._update()

    def finish(self) -> None:
        """Prune the weights to their projection."""
        with torch.no_grad():
            for weight in self.weights.values():
                weight.mul_(project(weight, self._projection))

    def measures(self) -> dict[str, float]:
        """Return rho and the relative residuals: ``||W - Z|| / ||Z||`` and ``||Z - Z before|| / ||Z||``."""
        return {"rho": self.rho, "primal": self._primal, "dual": self._dual}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state: Z and U; and rho, the residuals and what is left of the way as ``scalars``."""
        scalars = torch.tensor([self.rho, self._primal, self._dual, self._left], dtype=torch.float64)
        return {f"{kind}.{name}": own for kind, of in (("Z", self.Z), ("U", self.U)) for name, own in of.items()} | {
            "scalars": scalars
        }

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore the state."""
        for name in self.weights:
            self.Z[name], self.U[name] = tensors[f"Z.{name}"], tensors[f"U.{name}"]
        self.rho, self._primal, self._dual, *left = tensors["scalars"].tolist()
        self._left = left[0] if left else 1.0  # checkpoints of earlier versions do not have it

    def _offset(self, name: str) -> Tensor:
        return self.weights[name].detach() - self.Z[name] + self.U[name]

    def _update(self) -> None:
        """Project to a new Z; update U if the W step has gone far enough; and let rho grow."""
        arrived = self._penalty == "coupled" or self._left <= _LEFT
        apart, moved, size = 0.0, 0.0, 0.0
        rho = min(self._last, self.rho * self._growth)
        for name, weight in self.weights.items():
            shifted = weight.detach() + self.U[name]
            Z = shifted * project(shifted, self._projection)
            apart += float((weight.detach() - Z).square().sum())
            moved += float((Z - self.Z[name]).square().sum())
            size += float(Z.square().sum())
            self.U[name] = (shifted - Z if arrived else self.U[name]) * (self.rho / rho)
            self.Z[name] = Z
        self._left = 1.0 if arrived else self._left
        size = max(size, 1e-30)
        self._primal, self._dual = math.sqrt(apart / size), math.sqrt(moved / size)
        self.rho = rho
