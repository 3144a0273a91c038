"""The report of block sparsity: the segments of a written checkpoint, recounted from its files, and the fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.budgets import kept_weights
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.base import Written
from pruning_core.methods.block_lasso.options import BlockLasso
from pruning_core.methods.zeroing import matrix_report
from pruning_core.patterns.blocks import SegmentCount, recount_segments
from pruning_core.report.report import NormHistogram, Outcome, PatternReport, SegmentsReport
from pruning_core.spec.grammar import SegmentBlock

# The histogram of norms has bins of a quarter of a decade.
_BINS_A_DECADE = 4
_DECADES = 4


def count_segments(written: Written, options: BlockLasso, blocks: Mapping[str, SegmentBlock]) -> ZeroCount:
    """Count the segments of the matrices. Weights that were removed with their unit count as zeros at their old place.

    Args:
        written: The checkpoint.
        options: The method's options.
        blocks: Blocks of each matrix, by module path, in the order in which they were pruned.
    """
    shapes, mask = written.shapes, written.applied.mask
    counts = recount_segments(written.folder, written.dense, mask, blocks)
    weights, nonzeros = sum(count.weights for count in counts), sum(count.nonzeros for count in counts)
    # Only stored zeros are subtracted: the shapes, and so the MACs, are without the removed units already.
    stored = kept_weights(shapes.recounted.groups, mask.counts())
    return ZeroCount(
        sparsity=1 - nonzeros / weights,
        covered_sparsity=None,
        report=PatternReport(
            pattern=options.title,
            selection=options.selection,
            blocks=sum(count.segments for count in counts),
            violations=0,
            zeros=weights - nonzeros,
            prunable_weights=weights,
            nonzero_macs=round(shapes.macs.pruned - (stored - nonzeros) * shapes.recounted.length),
            matrices=tuple(
                matrix_report(fit, count.weights, count.nonzeros)
                for fit, count in zip(written.applied.fits, counts, strict=True)
            ),
            segments=_segments(options, counts, written.dense, mask),
            products=written.products,
        ),
    )


def _segments(options: BlockLasso, counts: Sequence[SegmentCount], dense: ModelAdapter, mask: Mask) -> SegmentsReport:
    removed = {"head": 0, "neuron": 0}
    for group, kept in zip(dense.groups, mask.counts(), strict=True):
        removed[group.kind] += group.size - kept
    return SegmentsReport(
        segment=options.segment,
        kept=sum(count.kept for count in counts),
        smaller=sum(count.smaller for count in counts),
        lengths=tuple(sorted({count.block.length for count in counts})),
        emptied=tuple(count.name for count in counts if count.kept == 1 and count.segments > 1),
        removed_heads=removed["head"],
        removed_neurons=removed["neuron"],
        norms=_histogram(counts),
    )


def _histogram(counts: Sequence[SegmentCount]) -> NormHistogram:
    """Count kept segments by their norm, relative to the mean norm of their matrix, on a logarithmic scale."""
    bins = _BINS_A_DECADE * _DECADES
    edges = [10 ** ((place - bins * 3 // 4) / _BINS_A_DECADE) for place in range(bins + 1)]
    found = torch.zeros(bins, dtype=torch.int64)
    for count in counts:
        if len(count.norms):
            relative = (count.norms / count.norms.mean()).clamp(edges[0], edges[-1])
            place = ((relative.log10() - math.log10(edges[0])) * _BINS_A_DECADE).long().clamp(0, bins - 1)
            found += torch.bincount(place, minlength=bins)
    return NormHistogram(edges=tuple(edges), counts=tuple(found.tolist()), zero=sum(c.segments - c.kept for c in counts))


def segment_hints(outcome: Outcome) -> list[str]:
    """Return hints on smaller segments, on matrices kept from being emptied, and on removed units."""
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
