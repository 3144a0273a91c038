"""Reweighted group Lasso in training, Li et al. 2020 (arXiv 2009.08065, section 3.2).

``min f(W) + lambda sum_g gamma_g ||W_g||`` over segments of blocks. The penalty weights ``gamma_g = 1 / (||W_g|| + epsilon)``
are recomputed at milestones (Candes, Wakin, Boyd 2008). So the penalty approximates the number of nonzero groups, instead of
shrinking all groups alike.

Deviations: (1) Each step ends with the proximal step of the penalty, ``W_g *= max(0, 1 - t gamma_g / ||W_g||)``, decoupled from
AdamW as weight decay is. Groups become exactly zero; a penalty's gradient only makes them small. (2) Norms are scaled to the
loss, ``s_g ||W_g||`` with ``s_g^2`` the mean price of one of the segment's weights (`pruning_core.search.segment_prices`).
One lambda and one threshold then mean the same in all matrices. (3) lambda is not an option but follows from the target. A
group of norm n shrinks by ``lambda / n`` in a step, so ``n^2`` falls by ``2 lambda``. lambda is chosen such that the group at
the target's threshold reaches zero at the end of the phase if no gradient opposes it; ``strength`` multiplies it. (4)
Milestones are shares of the phase's steps, not epochs, so that all of them are reached whatever the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.patterns.segments import LargestSegments, Segments
from pruning_core.search.segment_prices import gone_by_threshold
from pruning_core.shapes import Float
from pruning_core.spec.training import LassoTraining
from pruning_core.training.constraint import Moment, Unconstrained, Weights


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one matrix: its segments.

    Attributes:
        segments: The segments.
        scales: Factor of each segment's norm, (a, b); see `pruning_core.search.segment_prices.segment_scales`.
    """

    segments: Segments
    scales: Float[Tensor, "a b"]

    def view(self, weight: Float[Tensor, "d k"]) -> Float[Tensor, "k d"]:
        """Return a view of output-major weights that is input-major, as segments need it."""
        return weight.T

    def norms(self, weight: Tensor) -> Float[Tensor, "a b"]:
        """Compute the scaled norm of each group."""
        return self.segments.sums(self.view(weight).detach().float().square()).sqrt() * self.scales.to(weight.device)

    def spans(self, weight: Tensor) -> Float[Tensor, "a b"]:
        """Compute the scaled norm by which each group changes if all of its weights change by one."""
        sizes = self.segments.sizes(tuple(self.view(weight).shape), weight.device)
        return sizes.float().sqrt() * self.scales.to(weight.device)


def norm_at(norms: Float[Tensor, " n"], share: float) -> float:
    """Return the least norm such that a share of the groups have no larger one."""
    return float(norms.kthvalue(max(1, math.ceil(share * len(norms)))).values)


class GroupLasso(Unconstrained):
    """The constraint of the Lasso phase: the penalty, its reweighting, and the threshold at the end.

    Args:
        weights: The penalised weights, by module path.
        groups: Groups of each weight matrix, by module path.
        sparsity: Share of all weights that are zero when the phase ends.
        options: Strength, milestones and epsilon.
    """

    phase = "lasso"

    def __init__(self, weights: Weights, groups: Mapping[str, Groups], *, sparsity: float, options: LassoTraining) -> None:
        super().__init__(weights)
        self._groups, self._sparsity, self._options = groups, sparsity, options
        self._milestones: frozenset[int] = frozenset()
        self.gammas: dict[str, Tensor] = {}
        self.strength = self._epsilon = 0.0
        self.reweighted = 0

    def begin(self, steps: int, /) -> None:
        """Place the milestones, and compute lambda from the target."""
        count = min(self._options.milestones, steps)
        self._milestones = frozenset(index * steps // count for index in range(count))
        norms = torch.cat([self._groups[name].norms(weight).flatten() for name, weight in self.weights.items()])
        self._epsilon = self._options.epsilon * float(norms.mean())
        self.strength = self._options.strength * norm_at(norms, self._sparsity) ** 2 / (2 * max(1, steps))
        self._reweight(0)

    def after_step(self, moment: Moment, /) -> None:
        """Reweight the penalty at a milestone, then shrink every group."""
        if moment.step in self._milestones:
            self._reweight(moment.step)
        with torch.no_grad():
            for name, weight in self.weights.items():
                own = self._groups[name]
                norms = own.norms(weight)
                kept = (1 - self.strength * self.gammas[name] / norms.clamp_min(1e-30)).clamp_min(0)
                view = own.view(weight)
                view.mul_(own.segments.spread(kept, tuple(view.shape)).to(weight.dtype))

    def finish(self) -> None:
        """Keep the groups above the threshold that meets the target, one for all matrices."""
        names = list(self.weights)
        norms = [self._groups[name].norms(self.weights[name]) for name in names]
        shapes = [tuple(self._groups[name].view(self.weights[name]).shape) for name in names]
        sizes = [
            self._groups[name].segments.sizes(shape, own.device) for name, shape, own in zip(names, shapes, norms, strict=True)
        ]
        gone = gone_by_threshold([own.square() for own in norms], sizes, self._sparsity)
        with torch.no_grad():
            for name, own, shape, count in zip(names, norms, shapes, gone, strict=True):
                segments = self._groups[name].segments
                kept = LargestSegments(segments, count).kept(own.square(), shape)
                self._groups[name].view(self.weights[name]).mul_(segments.spread(kept, shape))

    def measures(self) -> dict[str, float]:
        """Return the share of groups that are zero, the penalty, and how often it was reweighted."""
        groups = zeros = 0
        penalty = 0.0
        for name, weight in self.weights.items():
            norms = self._groups[name].norms(weight)
            groups, zeros = groups + norms.numel(), zeros + int((norms == 0).sum())
            penalty += self.strength * float((self.gammas[name] * norms).sum())
        return {"zero_groups": zeros / max(1, groups), "penalty": penalty, "reweighted": float(self.reweighted)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state: the penalty weights; and lambda, epsilon and the number of reweightings as ``scalars``."""
        scalars = torch.tensor([self.strength, self._epsilon, self.reweighted], dtype=torch.float64)
        return {f"gamma.{name}": own for name, own in self.gammas.items()} | {"scalars": scalars}

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Restore the state."""
        self.gammas = {name: tensors[f"gamma.{name}"] for name in self.weights}
        self.strength, self._epsilon, reweighted = tensors["scalars"].tolist()
        self.reweighted = int(reweighted)

    def _reweight(self, _step: int) -> None:
        for name, weight in self.weights.items():
            self.gammas[name] = 1 / (self._groups[name].norms(weight) + self._epsilon).clamp_min(1e-30)
        self.reweighted += 1
