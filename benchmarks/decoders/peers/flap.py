"""FLAP: An et al. 2024, *Fluctuation-based Adaptive Structured Pruning for Large Language Models* (arXiv 2312.11983).

Section "Metric": the score of a channel is the fluctuation of the input of the output projection, weighed by that projection
(WIFV): ``S_j = var(X_j) ||W_j||^2``, where X_j is the channel's input over the calibration samples. Section "Adaptive
structure": scores are standardised within each sublayer, ``(S - E[S]) / std(S)``, and one threshold over all of them makes the
global structure (AL-AM). Section "Baseline bias compensation": removed channels are replaced by their means, ``B = W ((1 - M)
mean(X))``.

As in the authors' code (lib/prune.py), attention's channel scores are squared before they are standardised, and a head's score
is the mean of its channels'. Deviations: the unit of an attention is a group of query heads with their key and value, which the
paper's models do not have; a unit costs its multiply-accumulates at the calibration samples' length, where the paper counts
parameters (a head is 512 / 3 neurons); variances are over tokens and samples, without the code's running approximation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers.statistics import Statistics, gather
from benchmarks.decoders.peers.structure import Structure, budget
from pruning_core.arch.linear import weight_of
from pruning_core.arch.masks import Mask
from pruning_core.arch.sublayer import Sublayer
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.shapes import Bool, Float


def choose(case: Case, keep: float) -> tuple[Structure, float]:
    """Return the structure that keeps a share of the multiply-accumulates, and the seconds of its statistics."""
    statistics, seconds = case.once("statistics", lambda: gather(case.evidence))
    sublayers, groups = case.evidence.dense.sublayers, case.evidence.dense.groups
    scores = [standardised(channel_scores(own, statistics, index), own) for index, own in enumerate(sublayers)]
    mask = above_one_threshold(scores, groups, case.evidence.calibration.mean_length, keep)
    biases = {index: replaced(own, statistics.mean(index), mask.kept[index]) for index, own in enumerate(sublayers)}
    return Structure(mask, biases), seconds


def channel_scores(sublayer: Sublayer, statistics: Statistics, index: int) -> Float[Tensor, " k"]:
    """Return ``var(X_j) ||W_j||^2`` of each input of the output projection; squared for an attention."""
    scores = statistics.variance(index) * weight_of(sublayer.output).double().square().sum(0)
    return scores.square() if sublayer.signature.kind == "head" else scores


def standardised(scores: Float[Tensor, " k"], sublayer: Sublayer) -> Float[Tensor, " units"]:
    """Standardise the scores of channels within a sublayer, and average them over the channels of each unit."""
    return ((scores - scores.mean()) / scores.std()).unflatten(0, (-1, sublayer.unit_width)).mean(1)


def above_one_threshold(
    scores: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup], length: float, keep: float
) -> Mask:
    """Keep the units of the highest scores, over all sublayers, for as long as the budget lasts."""
    limit = budget(groups, length, keep)
    prices = torch.cat([torch.full((group.size,), group.macs_per_unit(length), dtype=torch.float64) for group in groups])
    order = torch.cat(list(scores)).argsort(descending=True, stable=True)
    count = int((prices[order].cumsum(0) <= limit).sum())
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[:count]] = True
    return Mask(tuple(kept.split([group.size for group in groups])))


def replaced(sublayer: Sublayer, mean: Float[Tensor, " k"], kept: Bool[Tensor, " units"]) -> Float[Tensor, " d"]:
    """Return what the removed channels add to the output at their means."""
    gone = mean * ~kept.repeat_interleave(sublayer.unit_width)
    return weight_of(sublayer.output).double() @ gone
