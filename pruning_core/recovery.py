"""Recovery: layer by layer, the output projection of each pruned sublayer is refitted to the dense model.

Student inputs are those of the already pruned and repaired layers below; the target is the dense model's residual stream,
``B = (x_dense + f_dense(x_dense)) - x_student``. Statistics run over real tokens only.

Two kinds. ``weights``: ``min over W', b' of ||B - X W' - b'||^2 + lambda ||W' - W||^2``, d right-hand sides over the kept rows.
``masks``: one scale a unit (Kwon et al. 2022, section 4.3; Li, Zhu, Sun 2024, section 3.3): ``A m = c`` with
``A = G o (W W^T)`` and ``c = diag(C W^T)``, summed over the columns of a unit; never the (N d) x k design matrix.

Deviations from the papers: weights instead of scales by default; the bias is refitted with the weights, because what is
pruned has a mean that no kept unit should have to imitate; shrinkage is towards the dense weights instead of zero; every
repair must lower the residual on held-out samples, else the sublayer stays as it was and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.arch.encoder import EncoderAdapter, Sublayer
from pruning_core.calibration import Batch
from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.cholesky import cholesky_solve
from pruning_core.linalg.lsmr import lsmr
from pruning_core.linalg.solution import Solution
from pruning_core.masks import Mask
from pruning_core.report import SublayerReport
from pruning_core.shapes import Float
from pruning_core.spec import RecoverySpec
from pruning_core.stats.gram import Gram

# Kwon's code damps the scale's change by 1 in absolute terms, whatever the data's scale.
_LSMR_MASK_DAMP = 1.0


@dataclass(slots=True)
class _Stream:
    """Hidden states of one batch on their way through the layers, teacher and student side by side."""

    teacher: Tensor
    student: Tensor
    real: Tensor
    fit: Tensor  # real tokens of the samples that are fitted
    judge: Tensor  # real tokens of the held-out samples


def prune_and_recover_(
    teacher: EncoderAdapter,
    student: EncoderAdapter,
    mask: Mask,
    batches: Sequence[Batch],
    spec: RecoverySpec,
    *,
    samples: int,
    on_sublayer: Callable[[int], None],
) -> tuple[SublayerReport, ...]:
    """Slice the student to the mask, sublayer by sublayer, repairing each before the next one's statistics.

    Args:
        teacher: Dense model.
        student: Its clone; changed in place.
        mask: What stays.
        batches: Calibration batches.
        spec: Kind and solver.
        samples: Number of calibration samples; the last ``holdout`` share of them judges.
        on_sublayer: Told after each sublayer how many are done.

    Returns:
        One report a sublayer, in order.
    """
    if spec.kind == "none":
        for index, sublayer in enumerate(student.sublayers):
            sublayer.slice_(mask.indices(index).to(sublayer.output.weight.device))
            on_sublayer(index + 1)
        return tuple(SublayerReport(solver="none", status="skipped", iterations=0) for _ in student.sublayers)
    first_judge = samples - max(1, round(samples * spec.holdout))
    reports: list[SublayerReport] = []
    with torch.no_grad():
        streams = [_open(teacher, batch, first_judge) for batch in batches]
        for index, (dense, pruned) in enumerate(zip(teacher.sublayers, student.sublayers, strict=True)):
            pruned.slice_(mask.indices(index).to(pruned.output.weight.device))
            reports.append(_repair_(dense, pruned, streams, spec))
            on_sublayer(index + 1)
    return tuple(reports)


def _open(teacher: EncoderAdapter, cpu_batch: Batch, first_judge: int) -> _Stream:
    batch = cpu_batch.to(teacher.model.device)
    hidden = teacher.embed(batch.inputs)
    real = batch.real
    judge = real & (batch.rows >= first_judge)[:, None]
    return _Stream(teacher=hidden, student=hidden, real=real, fit=real & ~judge, judge=judge)


def _repair_(dense: Sublayer, pruned: Sublayer, streams: Sequence[_Stream], spec: RecoverySpec) -> SublayerReport:
    """Gather one sublayer's statistics, solve, judge, set the weights, and move every stream past the sublayer."""
    k, d = pruned.output.in_features + 1, pruned.output.out_features
    device = pruned.output.weight.device
    fit, judge = Gram.zeros(k, d, device), Gram.zeros(k, d, device)
    features: list[Tensor] = []
    for stream in streams:
        dense_sum = stream.teacher + dense.output(dense.features(stream.teacher, stream.real))
        X = pruned.features(stream.student, stream.real)
        B = dense_sum - stream.student
        fit += _gram(X[stream.fit], B[stream.fit])
        judge += _gram(X[stream.judge], B[stream.judge])
        features.append(X)
        stream.teacher = dense.norm(dense_sum)
    report = _solve_and_judge_(pruned, fit, judge, spec)
    for stream, kept in zip(streams, features, strict=True):
        stream.student = pruned.norm(stream.student + pruned.output(kept))
    return report


def _gram(X: Float[Tensor, "n k"], B: Float[Tensor, "n d"]) -> Gram:
    """Statistics with a last column of ones, whose weight is the bias."""
    return Gram.of(torch.cat([X, X.new_ones(X.shape[0], 1)], dim=1), B)


def _solve_and_judge_(pruned: Sublayer, fit: Gram, judge: Gram, spec: RecoverySpec) -> SublayerReport:
    output = pruned.output
    before = torch.cat([output.weight.T, output.bias[None, :]]).double()  # input-major, the bias as last row
    units = pruned.units
    if units == 0 and spec.kind == "masks":
        return SublayerReport(solver="none", status="skipped", iterations=0)
    solver = "cholesky" if spec.solver == "auto" else spec.solver
    if spec.kind == "weights":
        solution = _solve_weights(solver, fit, before, spec)
        after = solution.value
    else:
        solution, after = _solve_masks(solver, fit, before, pruned.unit_width, spec)
    residual_before, residual_after = judge.relative_residual(before), judge.relative_residual(after)
    status = solution.status
    if status != "breakdown" and not residual_after < residual_before:
        status = "rejected"
    if status not in ("breakdown", "rejected"):
        output.weight.copy_(after[:-1].T)
        output.bias.copy_(after[-1])
    else:
        residual_after = residual_before
    return SublayerReport(
        solver=solver,
        status=status,
        iterations=solution.iterations,
        residual_before=residual_before,
        residual_after=residual_after,
    )


def _solve_weights(solver: str, fit: Gram, before: Float[Tensor, "k d"], spec: RecoverySpec) -> Solution:
    """``(G + Lambda) W' = C + Lambda W`` with Lambda zero for the bias, which has no dense value to stay near."""
    diagonal = fit.G.diagonal()
    ridge = torch.full_like(diagonal, spec.damping * float(diagonal[:-1].mean()) if len(diagonal) > 1 else 0.0)
    ridge[-1] = 0
    return _solve(solver, fit.G + ridge.diag(), fit.C + ridge[:, None] * before, before, spec, damp=0.0)


def _solve_masks(
    solver: str, fit: Gram, before: Float[Tensor, "k d"], unit_width: int, spec: RecoverySpec
) -> tuple[Solution, Float[Tensor, "k d"]]:
    """One scale a unit, the bias fixed: ``A m = c``, from ``m = 1``."""
    W, bias = before[:-1], before[-1:]
    G, C = fit.G[:-1, :-1], fit.C[:-1] - fit.G[:-1, -1:] @ bias
    A = (G * (W @ W.T)).unflatten(0, (-1, unit_width)).sum(1).unflatten(1, (-1, unit_width)).sum(2)
    c = (C * W).sum(1).unflatten(0, (-1, unit_width)).sum(1)
    ones = torch.ones(A.shape[0], 1, dtype=A.dtype, device=A.device)
    solution = _solve(solver, A, c[:, None], ones, spec, damp=_LSMR_MASK_DAMP)
    scaled = W * solution.value.repeat_interleave(unit_width, dim=0)
    return solution, torch.cat([scaled, bias])


def _solve(solver: str, A: Tensor, rhs: Tensor, x0: Tensor, spec: RecoverySpec, *, damp: float) -> Solution:
    if solver == "cholesky":
        return cholesky_solve(A, rhs, x0)
    if solver == "lsmr":
        return lsmr(A, rhs, x0, damp=damp, tolerance=spec.tolerance, max_iterations=spec.max_iterations)
    return conjugate_gradient(A, rhs, x0, tolerance=spec.tolerance, max_iterations=spec.max_iterations, jacobi=solver == "pcg")
