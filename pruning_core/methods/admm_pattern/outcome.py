"""The report of a pattern: the matrices of a written checkpoint, recounted from its files, and their fits."""

from __future__ import annotations

from torch import Tensor

from pruning_core.arch.linear import is_transposed
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.base import Written
from pruning_core.methods.zeroing import matrix_report
from pruning_core.patterns.recount import arrangements, recount
from pruning_core.report.report import PatternReport
from pruning_core.shapes import Bool
from pruning_core.spec.grammar import BlockPattern


def count_pattern(
    written: Written, options: AdmmPattern, block: BlockPattern | None, pool: Bool[Tensor, "patterns size"] | None
) -> ZeroCount:
    """Count the zeros of the matrices, whose shapes are the dense model's.

    Args:
        written: The checkpoint.
        options: The method's options.
        block: The pattern; None for unstructured.
        pool: Arrangements that blocks may have; None: any.
    """
    matrices = {path: is_transposed(linear) for path, linear in written.dense.linears.items()}
    counts = recount(written.folder, matrices, block, pool)
    weights, zeros = sum(count.weights for count in counts), sum(count.zeros for count in counts)
    return ZeroCount(
        sparsity=zeros / weights,
        covered_sparsity=sum(count.covered_zeros for count in counts) / max(1, sum(count.covered for count in counts)),
        report=PatternReport(
            pattern=options.pattern,
            selection=options.selection,
            blocks=sum(count.blocks for count in counts),
            violations=sum(count.violations for count in counts),
            zeros=zeros,
            prunable_weights=weights,
            # A weight is one multiply-accumulate for each token; attention's products of activations have no zeros.
            nonzero_macs=round(written.shapes.macs.dense - zeros * written.shapes.recounted.length),
            dense_remainders=tuple(count.remainder for count in counts if count.remainder is not None),
            pool=arrangements(pool),
            matrices=tuple(
                matrix_report(fit, count.weights, count.weights - count.zeros)
                for fit, count in zip(written.applied.fits, counts, strict=True)
            ),
            products=written.products,
        ),
    )
