"""Recovery of Kwon et al. 2022 (arXiv 2204.09656, section 4.3) as its public code works, written from a description.

Scalar masks are solved by LSMR with unit damping on the normal equations of the normal equations. No activation is kept: the
whole encoder runs to reach layer 0, and a layer runs again for each statistic that is read from it. So each layer of the
teacher runs twice (for the targets of its two sublayers), and each layer of the student four times (for the matrix and the
right-hand side of each sublayer).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.arch.sublayer import BlockContext, Sublayer
from pruning_core.evidence.calibration import Batch
from pruning_core.evidence.context import Evidence
from pruning_core.linalg.lsmr import lsmr
from pruning_core.machine.precision import products_in
from pruning_core.stats.gram import Gram


def recover_by_rerunning_(student: ModelAdapter, mask: Mask, evidence: Evidence) -> None:
    """Slice the student to the mask, and tune one scale for each unit, layer after layer."""
    dense, device = evidence.dense, evidence.dense.model.device
    batches = [batch.to(device) for batch in evidence.calibration.batches]
    for index, sublayer in enumerate(student.sublayers):
        sublayer.slice_(mask.indices(index).to(device))
    with torch.no_grad(), products_in(evidence.dtype, dense.model.device):
        hidden = [_layer_zero_inputs(dense, batch) for batch in batches]
        teacher, pupil = hidden, list(hidden)
        for layer in range(len(dense.sublayers) // 2):
            pair = slice(2 * layer, 2 * layer + 2)
            for half in (0, 1):
                targets = [_half_sum(dense.sublayers[pair], x, b, half)[1] for x, b in zip(teacher, batches, strict=True)]
                matrix = _sum_over(batches, pupil, targets, student.sublayers[pair], half)
                right = _sum_over(batches, pupil, targets, student.sublayers[pair], half)
                _tune_(student.sublayers[pair][half], Gram(matrix.G, right.C, matrix.energy, matrix.tokens))
            teacher = [_block(dense.sublayers[pair], x, b) for x, b in zip(teacher, batches, strict=True)]
            pupil = [_block(student.sublayers[pair], x, b) for x, b in zip(pupil, batches, strict=True)]


def _layer_zero_inputs(dense: ModelAdapter, batch: Batch) -> Tensor:
    caught: list[Tensor] = []

    def keep(_module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])

    handle = dense.first_block.register_forward_pre_hook(keep, with_kwargs=True)
    dense.model(**batch.inputs)  # the whole model, as the reference does
    handle.remove()
    return caught[0]


def _half_sum(pair: Sequence[Sublayer], hidden: Tensor, batch: Batch, half: int) -> tuple[Tensor, Tensor]:
    """Run a layer, and return one sublayer's features and its residual sum. The rest is thrown away."""
    found: list[tuple[Tensor, Tensor]] = []
    for sublayer in pair:
        features = sublayer.features(hidden, BlockContext(batch.real))
        output = sublayer.output(features)
        found.append((features, hidden + output))
        hidden = sublayer.close(hidden + output)
    return found[half]


def _block(pair: Sequence[Sublayer], hidden: Tensor, batch: Batch) -> Tensor:
    for sublayer in pair:
        hidden = sublayer.forward(hidden, BlockContext(batch.real))
    return hidden


def _sum_over(
    batches: Sequence[Batch], hidden: Sequence[Tensor], targets: Sequence[Tensor], pair: Sequence[Sublayer], half: int
) -> Gram:
    output = pair[half].output
    parts: list[Gram] = []
    for batch, x, target in zip(batches, hidden, targets, strict=True):
        features, reached = _half_sum(pair, x, batch, half)
        wanted = target - (reached - features.to(reached.dtype) @ output.weight.T)
        X, B = features[batch.real], wanted[batch.real]
        parts.append(Gram((X.T @ X).double(), (X.T @ B.to(X.dtype)).double(), float(B.double().square().sum()), len(X)))
    return reduce(add, parts)


def _tune_(sublayer: Sublayer, gram: Gram) -> None:
    if sublayer.units == 0:
        return
    W, width = sublayer.output.weight.T.double(), sublayer.unit_width
    A = (gram.G * (W @ W.T)).unflatten(0, (-1, width)).sum(1).unflatten(1, (-1, width)).sum(2)
    c = (gram.C * W).sum(1).unflatten(0, (-1, width)).sum(1)
    ones = torch.ones(len(A), 1, dtype=A.dtype, device=A.device)
    scales = lsmr(A, c[:, None], ones, damp=1.0, tolerance=1e-6, max_iterations=len(A)).value
    if float(scales.abs().max()) <= 10:  # larger scales are discarded, as in the reference
        sublayer.output.weight.mul_(scales.repeat_interleave(width, 0).T.to(sublayer.output.weight.dtype))
