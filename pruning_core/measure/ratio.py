"""How sure the ratio of two times is that were taken in turns, and when it is sure enough to stop."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from pruning_core.report.latency import SpeedupInterval, Stopped
from pruning_core.spec.latency import LatencySpec

CONFIDENCE = 0.95
# No interval of ranks reaches 95 % with fewer: the six ratios all lie on one side of the median in 2 of 2^6 cases.
LEAST_TURNS = 6
# A measurement that ends before this is of one moment of the machine, however narrow its interval.
_LEAST_MS = 1000.0
# Beyond this, no further turn begins after the least number of them: models that take seconds a pass.
_MOST_MS = 60_000.0


def speedup_interval(dense: Sequence[float], pruned: Sequence[float]) -> SpeedupInterval:
    """Return an interval of the speed-up: the median of the ratios of the turns lies between two of them, chosen by rank.

    The k-th smallest and the k-th largest of n ratios have the median between them with probability
    ``1 - 2 P(Binomial(n, 1/2) < k)``, whatever their distribution is: a busy machine's has a long tail, on which an interval of
    means would lean. The largest k is taken whose probability is at least 95 %, or else all of the ratios.

    Args:
        dense: Times of the dense model, by turn.
        pruned: Times of the pruned model, of the same turns.
    """
    ratios = sorted(one / other for one, other in zip(dense, pruned, strict=True))
    count = len(ratios)
    rank = max((k for k in range(1, count // 2 + 1) if _between(count, k) >= CONFIDENCE), default=1)
    return SpeedupInterval(low=ratios[rank - 1], high=ratios[count - rank], confidence=round(_between(count, rank), 4))


def reason_to_stop(dense: Sequence[float], pruned: Sequence[float], spec: LatencySpec) -> Stopped | None:
    """Return why no further turn is needed, given the milliseconds of those so far; None if one is.

    Args:
        dense: Times of the dense model, by turn.
        pruned: Times of the pruned model, of the same turns.
        spec: The measurement: the most turns, and how narrow the interval must be.
    """
    turns, spent = len(dense), sum(dense) + sum(pruned)
    if turns >= spec.repeats:
        return "repeats"
    if not spec.narrow or turns < LEAST_TURNS:
        return None
    if spent >= _LEAST_MS and speedup_interval(dense, pruned).half_width <= spec.narrow:
        return "narrow"
    return "seconds" if spent >= _MOST_MS else None


def _between(count: int, rank: int) -> float:
    return 1 - 2 * sum(comb(count, below) for below in range(rank)) / 2**count
