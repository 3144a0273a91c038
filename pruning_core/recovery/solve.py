"""One sublayer's repair: from its statistics to new weights of its output projection.

Two kinds. ``weights``: ``min over W', b' of ||B - X W' - b'||^2 + lambda ||W' - W||^2``, d right-hand sides over the kept rows.
``masks``: one scale a unit (Kwon et al. 2022, section 4.3; Li, Zhu, Sun 2024, section 3.3): ``A m = c`` with
``A = G o (W W^T)`` and ``c = diag(C W^T)``, summed over the columns of a unit; never the (N d) x k design matrix.

Deviations from the papers: weights instead of scales by default; the bias is refitted with the weights, because what is
pruned has a mean that no kept unit should have to imitate; shrinkage is towards the dense weights instead of zero; every
repair must lower the residual on held-out samples, else the sublayer stays as it was and the report says so. What has passed
is fitted once more on all samples, the held-out ones included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.arch.encoder import Sublayer
from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.cholesky import cholesky_solve
from pruning_core.linalg.lsmr import lsmr
from pruning_core.linalg.solution import Solution
from pruning_core.report import SublayerReport
from pruning_core.shapes import Float
from pruning_core.spec import RecoverySpec
from pruning_core.stats.gram import Gram

# Kwon's code damps the scale's change by 1 in absolute terms, whatever the data's scale.
_LSMR_MASK_DAMP = 1.0


@dataclass(frozen=True, slots=True)
class _Fit:
    """A solve, and the weights that follow from it, input-major with the bias as last row."""

    solution: Solution
    weights: Float[Tensor, "k d"]


def repair_(pruned: Sublayer, fit: Gram, judge: Gram, spec: RecoverySpec) -> SublayerReport:
    """Solve on the fitted samples, judge on the others, and set the weights if they pass.

    Args:
        pruned: The sliced sublayer; its output projection is changed in place.
        fit: Statistics of the samples to fit, with a last column of ones.
        judge: The same of the held-out samples.
        spec: Kind and solver.
    """
    output = pruned.output
    if pruned.units == 0 and spec.kind == "masks":
        return SublayerReport(solver="none", status="skipped", iterations=0)
    solver = "cholesky" if spec.solver == "auto" else spec.solver
    before = torch.cat([output.weight.T, output.bias[None, :]]).double()
    found = _solve_kind(solver, fit, before, pruned.unit_width, spec)
    residual_before, residual_after = judge.relative_residual(before), judge.relative_residual(found.weights)
    status, iterations = found.solution.status, found.solution.iterations
    if status != "breakdown" and residual_after < residual_before:
        final = _solve_kind(solver, fit + judge, before, pruned.unit_width, spec)
        chosen = found if final.solution.status == "breakdown" else final
        output.weight.copy_(chosen.weights[:-1].T)
        output.bias.copy_(chosen.weights[-1])
    else:
        status = "breakdown" if status == "breakdown" else "rejected"
        residual_after = residual_before
    return SublayerReport(
        solver=solver,
        status=status,
        iterations=iterations,
        residual_before=residual_before,
        residual_after=residual_after,
    )


def _solve_kind(solver: str, gram: Gram, before: Float[Tensor, "k d"], unit_width: int, spec: RecoverySpec) -> _Fit:
    if spec.kind == "weights":
        solution = _solve_weights(solver, gram, before, spec)
        return _Fit(solution, solution.value)
    return _solve_masks(solver, gram, before, unit_width, spec)


def _solve_weights(solver: str, fit: Gram, before: Float[Tensor, "k d"], spec: RecoverySpec) -> Solution:
    """``(G + Lambda) W' = C + Lambda W`` with Lambda zero for the bias, which has no dense value to stay near."""
    diagonal = fit.G.diagonal()
    ridge = torch.full_like(diagonal, spec.damping * float(diagonal[:-1].mean()) if len(diagonal) > 1 else 0.0)
    ridge[-1] = 0
    return _solve(solver, fit.G + ridge.diag(), fit.C + ridge[:, None] * before, before, spec, damp=0.0)


def _solve_masks(solver: str, fit: Gram, before: Float[Tensor, "k d"], unit_width: int, spec: RecoverySpec) -> _Fit:
    """One scale a unit, the bias fixed: ``A m = c``, from ``m = 1``."""
    W, bias = before[:-1], before[-1:]
    G, C = fit.G[:-1, :-1], fit.C[:-1] - fit.G[:-1, -1:] @ bias
    A = (G * (W @ W.T)).unflatten(0, (-1, unit_width)).sum(1).unflatten(1, (-1, unit_width)).sum(2)
    c = (C * W).sum(1).unflatten(0, (-1, unit_width)).sum(1)
    ones = torch.ones(A.shape[0], 1, dtype=A.dtype, device=A.device)
    solution = _solve(solver, A, c[:, None], ones, spec, damp=_LSMR_MASK_DAMP)
    scaled = W * solution.value.repeat_interleave(unit_width, dim=0)
    return _Fit(solution, torch.cat([scaled, bias]))


def _solve(solver: str, A: Tensor, rhs: Tensor, x0: Tensor, spec: RecoverySpec, *, damp: float) -> Solution:
    if solver == "cholesky":
        return cholesky_solve(A, rhs, x0)
    if solver == "lsmr":
        return lsmr(A, rhs, x0, damp=damp, tolerance=spec.tolerance, max_iterations=spec.max_iterations)
    return conjugate_gradient(A, rhs, x0, tolerance=spec.tolerance, max_iterations=spec.max_iterations, jacobi=solver == "pcg")
