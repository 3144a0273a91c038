"""Repair of one sublayer: new weights of its output projection, from the sublayer's statistics.

There are two kinds. ``weights``: ``min over W', b' of ||B - X W' - b'||^2 + lambda ||W' - W||^2``, with d right-hand sides over
the kept rows. ``masks``: one scale for each unit (Kwon et al. 2022, section 4.3; Li, Zhu, Sun 2024, section 3.3): ``A m = c``
with ``A = G o (W W^T)`` and ``c = diag(C W^T)``, summed over the columns of a unit; the (N d) x k design matrix is not formed.

Deviations from the papers: (1) The default is weights, not scales. (2) The bias is refitted with the weights: the removed units
had a mean output, which no kept unit should have to imitate. (3) Shrinkage is towards the dense weights, not towards zero.
(4) Every repair must lower the residual on held-out samples. If it does not, the sublayer stays as it was, and the report says
so. (5) A repair that passes is fitted once more on all samples, held-out ones included.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pruning_core.arch.linear import bias_of, weight_of, write_
from pruning_core.arch.sublayer import Sublayer
from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.cholesky import cholesky_solve
from pruning_core.linalg.lsmr import lsmr
from pruning_core.linalg.solution import Solution
from pruning_core.machine.finite import is_finite
from pruning_core.report.report import SolverStatus, SublayerReport
from pruning_core.shapes import Float
from pruning_core.spec.prune import RecoverySpec
from pruning_core.stats.gram import Gram

SolverName = Literal["cg", "pcg", "cholesky", "lsmr"]

# Kwon's code damps the change of the scales by 1, whatever the scale of the data.
_LSMR_MASK_DAMP = 1.0


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The system ``A x = rhs`` with its first iterate ``x0``: A is symmetric positive definite, rhs has a column a problem."""

    A: Float[Tensor, "k k"]
    rhs: Float[Tensor, "k d"]
    x0: Float[Tensor, "k d"]


def weights_system(gram: Gram, before: Float[Tensor, "k d"], damping: float, *, biased: bool = True) -> NormalEquations:
    """Return ``(G + Lambda) W' = C + Lambda W``. Lambda is zero for the bias, which has no dense value to stay near.

    Args:
        gram: Statistics with a last column of ones.
        before: Weights, input-major, with the bias as the last row.
        damping: Lambda, relative to the mean diagonal of the Gram matrix.
        biased: Whether there is a bias to fit; if not, its row is zero and stays zero.
    """
    diagonal = gram.G.diagonal()
    ridge = torch.full_like(diagonal, damping * float(diagonal[:-1].mean()) if len(diagonal) > 1 else 0.0)
    ridge[-1] = 0
    A = gram.G.clone()
    A.diagonal().add_(ridge)
    rhs = gram.C + ridge[:, None] * before
    if not biased:
        A[-1, :] = A[:, -1] = rhs[-1] = 0
        A[-1, -1] = 1
    return NormalEquations(A, rhs, before)


def masks_system(gram: Gram, before: Float[Tensor, "k d"], unit_width: int) -> NormalEquations:
    """Return ``A m = c`` for one scale of each unit, with the bias fixed, started from ``m = 1``.

    Args:
        gram: Statistics with a last column of ones.
        before: Weights, input-major, with the bias as the last row.
        unit_width: Rows of the weights that belong to one unit.
    """
    W, bias = before[:-1], before[-1:]
    G, C = gram.G[:-1, :-1], gram.C[:-1] - gram.G[:-1, -1:] @ bias
    A = (G * (W @ W.T)).unflatten(0, (-1, unit_width)).sum(1).unflatten(1, (-1, unit_width)).sum(2)
    c = (C * W).sum(1).unflatten(0, (-1, unit_width)).sum(1)
    return NormalEquations(A, c[:, None], torch.ones(A.shape[0], 1, dtype=A.dtype, device=A.device))


def solve_system(solver: SolverName, system: NormalEquations, spec: RecoverySpec) -> Solution:
    """Solve a system by the named solver. LSMR is damped for scales, as in Kwon's code, and not for weights."""
    A, rhs, x0 = system.A, system.rhs, system.x0
    if solver == "cholesky":
        return cholesky_solve(A, rhs, x0)
    if solver == "lsmr":
        damp = _LSMR_MASK_DAMP if spec.kind == "masks" else 0.0
        return lsmr(A, rhs, x0, damp=damp, tolerance=spec.tolerance, max_iterations=spec.max_iterations)
    return conjugate_gradient(A, rhs, x0, tolerance=spec.tolerance, max_iterations=spec.max_iterations, jacobi=solver == "pcg")


@dataclass(frozen=True, slots=True)
class RepairProblem:
    """The repair of one sublayer without its statistics.

    Attributes:
        solver: Name of the solver.
        before: Weights of the kept units, input-major, with the bias as the last row.
        unit_width: Rows that belong to one unit.
        biased: Whether the layer has a bias; if not, the last row is zero.
    """

    solver: SolverName
    before: Float[Tensor, "k d"]
    unit_width: int
    biased: bool


def repair_(pruned: Sublayer, fit: Gram, judge: Gram, spec: RecoverySpec) -> SublayerReport:
    """Solve on the fitted samples, judge the solution on the held-out samples, and set the weights if it passes.

    Args:
        pruned: The sliced sublayer; its output projection is changed in place.
        fit: Statistics of the fitted samples, with a last column of ones.
        judge: Statistics of the held-out samples, likewise.
        spec: Kind of recovery and solver.

    Returns:
        The report. If the trial passes, status, iterations and the residual after the repair are those of the fit on all
        samples, whose weights are set. Both residuals are on the held-out samples, which that fit has seen too.
    """
    output = pruned.output
    if pruned.units == 0 and spec.kind == "masks":
        return SublayerReport(solver="none", status="skipped", iterations=0)
    weights, bias = weight_of(output), bias_of(output)
    last = weights.new_zeros(pruned.hidden) if bias is None else bias
    problem = RepairProblem(
        solver=_default_solver(spec, pruned) if spec.solver == "auto" else spec.solver,
        before=torch.cat([weights.T, last[None, :]]).double(),
        unit_width=pruned.unit_width,
        biased=bias is not None,
    )
    solution, after = _try(problem, fit, spec)
    verdict = judge.to(after.dtype)
    residual_before = residual_after = verdict.relative_residual(problem.before)
    status: SolverStatus = "rejected"
    if solution.failed:
        status = solution.status
    elif verdict.relative_residual(after) < residual_before:
        final, on_all = solve_problem(problem, fit + judge, spec)
        solution, chosen = (solution, after) if final.failed else (final, on_all)
        stored = chosen.to(weights)
        status = solution.status if is_finite(stored) else "breakdown"
        if is_finite(stored):
            write_(output, stored[:-1].T, stored[-1])
            residual_after = verdict.relative_residual(stored)
    return SublayerReport(
        solver=problem.solver,
        status=status,
        iterations=solution.iterations,
        residual_before=residual_before,
        residual_after=residual_after,
    )


def _default_solver(spec: RecoverySpec, pruned: Sublayer) -> SolverName:
    """Return the solver that is fastest for the case in ``make bench-solvers``.

    For weights, one factorisation serves all d right-hand sides. For the scales of many neurons there is one right-hand side,
    and CG with a Jacobi preconditioner takes less time than a factorisation.
    """
    return "pcg" if spec.kind == "masks" and pruned.unit_width == 1 else "cholesky"


def _try(problem: RepairProblem, gram: Gram, spec: RecoverySpec) -> tuple[Solution, Float[Tensor, "k d"]]:
    """Solve a trial that is only judged. A factorisation runs in float32, which takes half the time, if it does not fail."""
    if problem.solver == "cholesky":
        rough = dataclasses.replace(problem, before=problem.before.float())
        solution, after = solve_problem(rough, gram.to(torch.float32), spec)
        if not solution.failed:
            return solution, after
    return solve_problem(problem, gram, spec)


def solve_problem(problem: RepairProblem, gram: Gram, spec: RecoverySpec) -> tuple[Solution, Float[Tensor, "k d"]]:
    """Return the solution, and the weights that follow from it, input-major with the bias as the last row."""
    before = problem.before
    if spec.kind == "weights":
        solution = solve_system(problem.solver, weights_system(gram, before, spec.damping, biased=problem.biased), spec)
        return solution, solution.value
    solution = solve_system(problem.solver, masks_system(gram, before, problem.unit_width), spec)
    scales = solution.value.repeat_interleave(problem.unit_width, dim=0)
    return solution, torch.cat([before[:-1] * scales, before[-1:]])
