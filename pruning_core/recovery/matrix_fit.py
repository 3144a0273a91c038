"""Support and weights of one matrix under a pattern, from the statistics of its inputs and targets.

The problem is that of `pruning_core.stats.gram` with a column of ones: ``min over W, b of ||B - X W - b||^2 + lambda ||W -
W_dense||^2`` with W in the pattern. The bias costs nothing at inference, and centring eliminates it: once ``X`` and ``B`` have
zero mean, the best W does not depend on it, and ``b = mean(B) - mean(X) W``. The centred problem is scaled to unit diagonal.
Then one penalty fits all inputs, and a projection weighs each weight by the size of its input, as Wanda does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import assert_never

import torch
from torch import Tensor

from pruning_core.linalg.admm import Schedule, find_support
from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.obs import GROUP, prune_by_obs
from pruning_core.linalg.solution import SolveStatus, is_failure
from pruning_core.machine.finite import is_finite
from pruning_core.patterns.project import Projection
from pruning_core.report.report import SolverStatus
from pruning_core.shapes import Bool, Float
from pruning_core.spec.options import Selection, ZeroingOptions
from pruning_core.stats.gram import Gram

_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Matrix:
    """Statistics and dense parameters of a linear layer, input-major.

    Attributes:
        name: Module path of the layer.
        fit: Statistics of the fitted samples, with a last column of ones.
        judge: Statistics of the held-out samples, likewise.
        weights: Dense weights.
        bias: Dense bias; None if the layer has none.
    """

    name: str
    fit: Gram
    judge: Gram
    weights: Float[Tensor, "k d"]
    bias: Float[Tensor, " d"] | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Result of a selection.

    Attributes:
        support: Weights that stay.
        weights: Values that the selection gives them, before any refit.
        status: Status of the selection.
        iterations: Number of ADMM steps; 0 for selections that do not iterate.
        primal: Primal residual of ADMM; None for other selections.
        dual: Dual residual of ADMM; None for other selections.
    """

    support: Bool[Tensor, "k d"]
    weights: Float[Tensor, "k d"]
    status: SolverStatus
    iterations: int
    primal: float | None = None
    dual: float | None = None


@dataclass(frozen=True, slots=True)
class ScaledProblem:
    """The centred problem, scaled to unit diagonal, in float32.

    Attributes:
        H: Gram matrix with its ridge.
        R: Right-hand sides.
        scale: Factor that brings the weights of each input into the problem's scale.
        mean_x: Mean of the inputs.
        mean_b: Mean of the targets.
    """

    H: Float[Tensor, "k k"]
    R: Float[Tensor, "k d"]
    scale: Float[Tensor, " k"]
    mean_x: Float[Tensor, " k"]
    mean_b: Float[Tensor, " d"]

    @classmethod
    def of(cls, gram: Gram, weights: Float[Tensor, "k d"], damping: float, *, centred: bool) -> ScaledProblem:
        """Make the problem: centre, if there is a bias that can take up the means, and scale."""
        sums, rows = gram.G[-1, :-1], max(1, gram.tokens)
        mean_x, mean_b = sums / rows, gram.C[-1] / rows
        taken = mean_x if centred else torch.zeros_like(mean_x)
        G = gram.G[:-1, :-1] - torch.outer(sums, taken)
        C = gram.C[:-1] - rows * torch.outer(taken, mean_b)
        # The floor avoids a division by zero for inputs that are always zero.
        ridge = max(damping * float(G.diagonal().mean()), torch.finfo(torch.float32).tiny)
        scale = (G.diagonal().clamp_min(0) + ridge).sqrt()
        H = G / torch.outer(scale, scale)
        H.diagonal().fill_(1)
        R = (C + ridge * weights.double()) / scale[:, None]
        return cls(H.float(), R.float(), scale, mean_x, mean_b)

    def scaled(self, weights: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Convert weights to the problem's scale."""
        return (weights.double() * self.scale[:, None]).float()

    def weights(self, value: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Convert weights back from the problem's scale."""
        return value.double() / self.scale[:, None]

    def bias(self, weights: Float[Tensor, "k d"]) -> Float[Tensor, " d"]:
        """Return the best bias for given weights."""
        return self.mean_b - self.mean_x @ weights


@dataclass(frozen=True, slots=True)
class Fit:
    """Report of one matrix: how it was pruned and refitted.

    Attributes:
        name: Module path of the matrix.
        status: Status of the selection; that of the refit if it broke down or was rejected.
        iterations: Number of ADMM steps; 0 for selections that do not iterate.
        refit_steps: Number of steps of the refit on all samples; of the trial if that was rejected.
        primal: Primal residual ``||W - D|| / ||D||`` at the end of ADMM; None for other selections.
        dual: Dual residual ``rho ||D - D_before|| / ||V||`` at the end of ADMM; None for other selections.
        residual_before: Residual on the held-out samples before the refit, relative to the energy of the target.
        residual_after: The same residual of the returned weights. A refit that was kept has also been fitted to these samples.
    """

    name: str
    status: SolverStatus
    iterations: int
    refit_steps: int
    primal: float | None
    dual: float | None
    residual_before: float
    residual_after: float


def choose(matrix: Matrix, selection: Selection, projection: Projection, options: ZeroingOptions) -> Choice:
    """Choose the support from the statistics of all samples. If the solver breaks down, choose it as Wanda does."""
    gram = matrix.fit + matrix.judge
    dense = matrix.weights
    norms = gram.G.diagonal()[:-1].clamp_min(0).sqrt().to(dense)
    by_input = (dense * norms[:, None]).square()
    match selection:
        case "magnitude":
            return _masked(dense, projection.support(dense.square()), "skipped")
        case "wanda":
            return _masked(dense, projection.support(by_input), "skipped")
        case "sparsegpt":
            H = gram.G[:-1, :-1].clone()
            H.diagonal().add_(max(options.damping * float(H.diagonal().mean()), torch.finfo(torch.float32).tiny))
            pruned = prune_by_obs(H, dense.double(), projection, options.obs_group or GROUP)
            if pruned is None:
                return _masked(dense, projection.support(by_input), "breakdown")
            return Choice(pruned.support, pruned.value, "converged", 0)
        case "admm":
            system = ScaledProblem.of(gram, dense, options.damping, centred=matrix.bias is not None)
            found = find_support(system.H, system.R, system.scaled(dense), projection, Schedule(iterations=options.iterations))
            weights = system.weights(found.value)
            if found.status == "breakdown" or not bool(weights.isfinite().all()):
                return _masked(dense, projection.support(by_input), "breakdown")
            return Choice(found.support, weights, found.status, found.iterations, found.primal, found.dual)
        case _:
            assert_never(selection)


def fit_matrix(
    matrix: Matrix, projection: Projection, options: ZeroingOptions, *, refit: bool
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " d"] | None, Fit]:
    """Choose the support of a matrix and refit its weights.

    A trial refit on the fitted samples alone must lower the residual on the held-out samples. It is compared with the dense
    weights on the same support; with SparseGPT, with the weights that SparseGPT has compensated. If the trial passes, the
    weights are refitted on all samples. If not, they stay as they were before it, and the status is ``rejected``. Both
    reported residuals are on the held-out samples, which the refit on all samples has seen too.

    Returns:
        Weights and bias, float64, and the report.
    """
    choice = choose(matrix, options.selection, projection, options)
    own = options.selection == "sparsegpt" and choice.status != "breakdown"
    before = (choice.weights if own else matrix.weights * choice.support).double()
    result, bias = before, matrix.bias
    before_residual = after_residual = _residual(matrix, before, matrix.bias)
    status, steps = choice.status, 0
    if refit:
        refit_on = partial(_refit, matrix, choice=choice, damping=options.damping)
        trial, trial_status, steps = refit_on(matrix.fit, start=before, steps=options.steps)
        lowered = _residual(matrix, *trial)
        if is_failure(trial_status) or not lowered < before_residual:
            status = trial_status if is_failure(trial_status) else "rejected"
        else:
            final, final_status, steps = refit_on(matrix.fit + matrix.judge, start=choice.weights, steps=options.steps)
            delivered = trial if is_failure(final_status) else final
            if all(own is None or is_finite(own.to(matrix.weights)) for own in delivered):
                result, bias = delivered
                after_residual = _residual(matrix, result, bias)
            else:
                status = "breakdown"
    report = Fit(
        name=matrix.name,
        status=status,
        iterations=choice.iterations,
        refit_steps=steps,
        primal=choice.primal,
        dual=choice.dual,
        residual_before=before_residual,
        residual_after=after_residual,
    )
    return result, bias, report


def _refit(
    matrix: Matrix, gram: Gram, choice: Choice, start: Float[Tensor, "k d"], *, steps: int, damping: float
) -> tuple[tuple[Float[Tensor, "k d"], Float[Tensor, " d"] | None], SolveStatus, int]:
    """Solve for the weights on a support by conjugate gradient, and for the bias.

    The diagonal of the scaled problem is one, so a Jacobi preconditioner would change nothing.
    """
    system = ScaledProblem.of(gram, matrix.weights, damping, centred=matrix.bias is not None)
    solution = conjugate_gradient(
        system.H,
        system.R,
        system.scaled(start) * choice.support,
        tolerance=_TOLERANCE,
        max_iterations=steps,
        jacobi=False,
        support=choice.support,
    )
    weights = system.weights(solution.value)
    bias = None if matrix.bias is None else system.bias(weights)
    return (weights, bias), solution.status, solution.iterations


def _residual(matrix: Matrix, weights: Float[Tensor, "k d"], bias: Float[Tensor, " d"] | None) -> float:
    last = torch.zeros_like(weights[0]) if bias is None else bias.to(weights)
    return matrix.judge.relative_residual(torch.cat([weights, last[None, :]]))


def _masked(dense: Float[Tensor, "k d"], support: Bool[Tensor, "k d"], status: SolverStatus) -> Choice:
    return Choice(support, (dense * support).double(), status, 0)
