"""Sparsity of every linear of the blocks, from the first to the last, each with the inputs that the pruned ones before it give.

The query, key and value projections and the first FFN matrices are fitted from the student's inputs to the dense model's own
outputs. The output projections are fitted to the dense model's residual stream, as after the removal of units. So each matrix
also compensates for the losses of those before it. Shapes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import bias_of, set_, weight_of
from pruning_core.arch.paging import held
from pruning_core.arch.sublayer import Sublayer
from pruning_core.evidence.context import Evidence
from pruning_core.machine.precision import products_in
from pruning_core.patterns.project import Projection
from pruning_core.recovery.matrix_fit import Fit, Matrix, fit_matrix
from pruning_core.recovery.streams import Streams
from pruning_core.spec.options import ZeroingOptions
from pruning_core.spec.prune import RecoverySpec
from pruning_core.stats.gram import Gram
from pruning_core.stats.input_sums import InputSums

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear


def sparsify_(
    student: ModelAdapter,
    projection: Projection | Mapping[str, Projection],
    evidence: Evidence,
    options: ZeroingOptions,
    recovery: RecoverySpec,
    *,
    on_sublayer: Callable[[int], None],
    on_matrix: Callable[[Matrix], None] = lambda _matrix: None,
) -> tuple[Fit, ...]:
    """Prune and refit every linear of the student's blocks.

    Args:
        student: A clone of the dense model; it gets new weights in place.
        projection: Projection onto the pattern; or one for each matrix, by module path.
        evidence: Dense model and calibration batches.
        options: Options of the selection and the refit.
        recovery: Whether to refit, and the share of held-out samples.
        on_sublayer: Called after each sublayer with the number of finished sublayers.
        on_matrix: Called with each matrix before it is pruned.

    Returns:
        One report for each matrix, in order.
    """
    samples = evidence.calibration.samples
    first_judge = samples - max(1, round(samples * recovery.holdout))
    paths = student.paths
    fits: list[Fit] = []
    device = student.model.device

    def prune_(linear: AnyLinear, statistics: tuple[Gram, Gram]) -> None:
        weights, bias = weight_of(linear).T.contiguous(), bias_of(linear)
        fitting, judging = (gram.checked(paths[linear]) for gram in statistics)
        matrix = Matrix(paths[linear], fitting, judging, weights, bias)
        rule = projection[matrix.name] if isinstance(projection, Mapping) else projection
        with products_in(torch.float32, device):
            on_matrix(matrix)
            fitted, fitted_bias, fit = fit_matrix(matrix, rule, options, refit=recovery.kind == "weights")
        set_(linear, fitted.T, fitted_bias)
        fits.append(fit)

    with torch.no_grad(), products_in(evidence.dtype, device), evidence.states.cache() as cache:
        # Centring cancels most digits where inputs have large means: Gram matrices from bfloat16 would not even be definite.
        streams = Streams(evidence, cache, samples=samples, first_judge=first_judge, gram_dtype=torch.float32)
        before: Sublayer | None = None
        memory: tuple[InputSums, InputSums] | None = None
        for index, (dense, own) in enumerate(zip(evidence.dense.sublayers, student.sublayers, strict=True)):
            if index == evidence.dense.crossing:
                memory = streams.cross(evidence.dense, student)
            with held(dense.block, own.block):
                moments = streams.gather_inputs(index, before, dense)
                for part, original in zip(own.parts, dense.parts, strict=True):
                    parameters = weight_of(original.linear).T, bias_of(original.linear)
                    fitting, judging = memory if memory is not None and part.reads_memory else moments
                    prune_(part.linear, (fitting.problem(*parameters), judging.problem(*parameters)))
                prune_(own.output, streams.gather(index, dense, own, dense.layer))
                streams.advance(own, dense.layer)
            before = dense
            on_sublayer(index + 1)
    return tuple(fits)
