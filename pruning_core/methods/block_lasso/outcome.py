"""What a checkpoint with block sparsity achieved: its segments recounted from the files, beside how they were fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.methods.admm_pattern.outcome import matrix_report
from pruning_core.methods.block_lasso.plan import BlockPlan
from pruning_core.patterns.blocks import SegmentCount, recount_segments
from pruning_core.recovery.matrix import Fit
from pruning_core.report.report import NormHistogram, Outcome, PatternReport, SegmentsReport, SparsityReport

# Bins of the histogram of norms, each a quarter of a decade.
_BINS_A_DECADE = 4
_DECADES = 4


def with_segments(
    outcome: Outcome, plan: BlockPlan, fits: Sequence[Fit], folder: Path, dense: ModelAdapter, *, mask: Mask, length: float
) -> Outcome:
    """Complete an outcome by what the matrices hold.

    Args:
        outcome: Counted by shapes.
        plan: What the matrices were held to.
        fits: How each went.
        folder: The written checkpoint.
        dense: The dense model's sublayers.
        mask: Units that the checkpoint still has.
        length: Mean real sequence length of the task, in tokens.
    """
    counts = recount_segments(folder, dense, mask, plan.blocks)
    weights, nonzeros = sum(count.weights for count in counts), sum(count.nonzeros for count in counts)
    # Stored zeros; what was removed with its unit is in the outcome's own MACs already.
    stored = sum(group.weights_per_unit * kept for group, kept in zip(dense.groups, mask.counts(), strict=True))
    achieved = 1 - nonzeros / weights
    return outcome.model_copy(
        update={
            "target": outcome.target.model_copy(update={"achieved": achieved}),
            "sparsity": SparsityReport(achieved=achieved),
            "pattern": PatternReport(
                pattern=plan.options.title,
                selection=plan.options.selection,
                blocks=sum(count.segments for count in counts),
                violations=0,
                zeros=weights - nonzeros,
                prunable_weights=weights,
                nonzero_macs=round(outcome.macs.pruned - (stored - nonzeros) * length),
                matrices=tuple(
                    matrix_report(fit, count.weights, count.nonzeros) for fit, count in zip(fits, counts, strict=True)
                ),
                segments=_segments(plan, counts, dense, mask),
            ),
        }
    )


def _segments(plan: BlockPlan, counts: Sequence[SegmentCount], dense: ModelAdapter, mask: Mask) -> SegmentsReport:
    removed = [group.size - kept for group, kept in zip(dense.groups, mask.counts(), strict=True)]
    return SegmentsReport(
        segment=plan.options.segment,
        kept=sum(count.kept for count in counts),
        smaller=sum(count.smaller for count in counts),
        lengths=tuple(sorted({count.block.length for count in counts})),
        emptied=tuple(count.name for count in counts if count.kept == 1 and count.segments > 1),
        removed_heads=sum(removed[::2]),
        removed_neurons=sum(removed[1::2]),
        norms=_histogram(counts),
    )


def _histogram(counts: Sequence[SegmentCount]) -> NormHistogram:
    """Count kept segments by their norm, each relative to its matrix's mean, on a scale of logarithms."""
    bins = _BINS_A_DECADE * _DECADES
    edges = [10 ** ((place - bins * 3 // 4) / _BINS_A_DECADE) for place in range(bins + 1)]
    found = torch.zeros(bins, dtype=torch.int64)
    for count in counts:
        if len(count.norms):
            relative = (count.norms / count.norms.mean()).clamp(edges[0], edges[-1])
            place = ((relative.log10() - math.log10(edges[0])) * _BINS_A_DECADE).long().clamp(0, bins - 1)
            found += torch.bincount(place, minlength=bins)
    return NormHistogram(edges=tuple(edges), counts=tuple(found.tolist()), zero=sum(c.segments - c.kept for c in counts))


def segment_warnings(outcome: Outcome) -> list[str]:
    """Say what blocks did not divide, what was kept from vanishing, and what was removed."""
    pattern = outcome.pattern
    if pattern is None or pattern.segments is None:
        return []
    own, found = pattern.segments, list[str]()
    if own.smaller:
        found.append(f"blocks do not divide every matrix: {own.smaller} segments at the edges are smaller than the others")
    if own.emptied:
        found.append(f"one segment was kept in each of {', '.join(own.emptied)}, which the threshold would have emptied")
    if own.removed_heads or own.removed_neurons:
        found.append(
            f"{own.removed_heads} heads and {own.removed_neurons} neurons had no weights left on one side: removed physically"
        )
    return found
