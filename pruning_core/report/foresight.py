"""What a budget that nobody has built would bring, from an outlook and the checkpoints that were built. Torch-free.

Sizes are counted. A divergence is the cost that the scores foresee, put to scale by what was built: with one checkpoint in
proportion to it, with more by a power law fitted to them. The time falls in proportion to the multiply-accumulates that go, at
the rate of what was built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from pruning_core.report.outlook import OutlookReport
from pruning_core.report.quality import QualityReport

# Bounds of the power of the cost that a divergence grows with: two checkpoints that lie close together could give any.
_POWERS = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a pruned model is from the dense one: a number that is 0 for the dense model itself.

    Attributes:
        measure: What it is, in words.
        value: The number.
        least: The smallest number that the rows can tell from 0.
    """

    measure: str
    value: float
    least: float


def divergence_of(quality: QualityReport) -> Divergence | None:
    """Return the divergence that a report of quality holds; None where it holds none."""
    least = 0.5 / max(1, quality.samples)
    if quality.metric == "perplexity":
        if min(quality.pruned, quality.dense) <= 0:
            return None
        return Divergence("log-perplexity lost", math.log(quality.pruned / quality.dense), least)
    measures = {
        "agreement_with_dense": "share of answers that differ from the dense model's",
        "pearson_with_dense": "1 minus the correlation with the dense model's scores",
        "cosine_to_dense": "1 minus the cosine to the dense model's embeddings",
    }
    for name, measure in measures.items():
        if name in quality.details:
            return Divergence(measure, 1 - quality.details[name], least)
    if quality.metric == "cosine":
        return Divergence(measures["cosine_to_dense"], 1 - quality.pruned, least)
    return None


@dataclass(frozen=True, slots=True)
class Built:
    """A checkpoint that was built.

    Attributes:
        keep: Share of the multiply-accumulates that it kept.
        speedup: As measured.
        divergence: As measured; None where there is no measure.
    """

    keep: float
    speedup: float
    divergence: float | None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a budget would bring; None: nothing was built by which it could be told."""

    keep: float
    parameters: int
    bytes: int
    speedup: float | None
    divergence: float | None


class Foresight:
    """Predicts by an outlook and what was built."""

    def __init__(self, outlook: OutlookReport, built: Sequence[Built], *, parameters: int, size: int, least: float) -> None:
        """Fit what was built.

        Args:
            outlook: Budgets and costs.
            built: Checkpoints of the same model, data, method and repair.
            parameters: Number of parameters of the dense model.
            size: Bytes of the dense model's weights.
            least: The smallest divergence that can be told from 0.
        """
        self._points = [(1.0, float(parameters), float(size), 0.0)]
        self._points += [(own.keep, float(own.parameters), float(own.bytes), own.cost) for own in outlook.points]
        measured = [
            (self._at(own.keep)[2], max(least, own.divergence))
            for own in built
            if own.divergence is not None and self.covers(own.keep)
        ]
        self._scale = _power_law([(cost, found) for cost, found in measured if cost > 0])
        self._rate = _rate(built)

    @property
    def least_keep(self) -> float:
        """The smallest budget that can be met."""
        return self._points[-1][0]

    def covers(self, keep: float) -> bool:
        """Whether a budget can be met."""
        return self.least_keep <= keep <= 1

    def at(self, keep: float) -> Foreseen:
        """Predict a budget that can be met."""
        parameters, size, cost = self._at(keep)
        divergence = None
        if self._scale is not None:
            factor, power = self._scale
            divergence = factor * cost**power if cost > 0 else 0.0
        speedup = None if self._rate is None else 1 / max(0.01, 1 - self._rate * (1 - keep))
        return Foreseen(keep, round(parameters), round(size), speedup, divergence)

    def _at(self, keep: float) -> tuple[float, float, float]:
        """Read parameters, bytes and cost between the two budgets beside it."""
        for before, after in zip(self._points, self._points[1:], strict=False):
            if after[0] <= keep <= before[0]:
                part = (before[0] - keep) / (before[0] - after[0]) if before[0] > after[0] else 0.0
                parameters, size, cost = (one + part * (other - one) for one, other in zip(before[1:], after[1:], strict=True))
                return parameters, size, cost
        return self._points[-1][1:]


def _power_law(measured: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Fit ``divergence = factor * cost ** power`` by least squares of the logarithms; None where nothing was measured."""
    if not measured:
        return None
    logs = [(math.log(cost), math.log(found)) for cost, found in measured]
    middle, height = mean(x for x, _ in logs), mean(y for _, y in logs)
    spread = sum((x - middle) ** 2 for x, _ in logs)
    power = sum((x - middle) * (y - height) for x, y in logs) / spread if spread > 0.05 else 1.0
    power = min(max(power, _POWERS[0]), _POWERS[1])
    return math.exp(height - power * middle), power


def _rate(built: Sequence[Built]) -> float | None:
    """Return the share of the time that goes for each share of the multiply-accumulates, by least squares."""
    gone = [(1 - own.keep, 1 - 1 / own.speedup) for own in built if own.keep < 1 and own.speedup > 0]
    if not gone:
        return None
    return max(0.0, sum(x * y for x, y in gone) / sum(x * x for x, _ in gone))
