"""One matrix under a pattern: which weights stay, and their values, from the statistics of its inputs and targets.

The problem is that of `pruning_core.stats.gram` with a column of ones: ``min over W, b of ||B - X W - b||^2 + lambda ||W -
W_dense||^2`` with W in the pattern. The bias costs nothing at inference and is solved for by centring: with ``X`` and ``B``
less their means the best W does not depend on it, and ``b = mean(B) - mean(X) W``. What remains is scaled to unit diagonal, so
that one penalty fits all inputs, and so that a projection weighs a weight by its input's size, as Wanda does.
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
    """A linear layer's statistics and dense parameters, input-major.

    Attributes:
        name: Its module path.
        fit: Statistics of the samples that are fitted, with a last column of ones.
        judge: Those of the held-out samples.
        weights: Dense weights.
        bias: Dense bias; None where the layer has none.
    """

    name: str
    fit: Gram
    judge: Gram
    weights: Float[Tensor, "k d"]
    bias: Float[Tensor, " d"] | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which weights stay, with the values that the selection itself gives them, and how it went."""

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
        H: Gram with its ridge.
        R: Right-hand sides.
        scale: What weights are multiplied by to be in it.
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
        """Centre (where there is a bias to take the means up) and scale."""
        sums, rows = gram.G[-1, :-1], max(1, gram.tokens)
        mean_x, mean_b = sums / rows, gram.C[-1] / rows
        taken = mean_x if centred else torch.zeros_like(mean_x)
        G = gram.G[:-1, :-1] - torch.outer(sums, taken)
        C = gram.C[:-1] - rows * torch.outer(taken, mean_b)
        # The floor keeps inputs that are always zero from dividing by it.
        ridge = max(damping * float(G.diagonal().mean()), torch.finfo(torch.float32).tiny)
        scale = (G.diagonal().clamp_min(0) + ridge).sqrt()
        H = G / torch.outer(scale, scale)
        H.diagonal().fill_(1)
        R = (C + ridge * weights.double()) / scale[:, None]
        return cls(H.float(), R.float(), scale, mean_x, mean_b)

    def scaled(self, weights: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Put weights into the system's scale."""
        return (weights.double() * self.scale[:, None]).float()

    def weights(self, value: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Take weights out of the system's scale."""
        return value.double() / self.scale[:, None]

    def bias(self, weights: Float[Tensor, "k d"]) -> Float[Tensor, " d"]:
        """Give the best bias beside given weights."""
        return self.mean_b - self.mean_x @ weights


@dataclass(frozen=True, slots=True)
class Fit:
    """How one matrix was pruned and refitted.

    Attributes:
        name: Its module path.
        status: Of the selection, unless the refit broke down or was rejected.
        iterations: ADMM steps; 0 for selections that do not iterate.
        refit_steps: Steps of the refit that was kept, or of the one that was not.
        primal: ``||W - D|| / ||D||`` when ADMM ended.
        dual: ``rho ||D - D_before|| / ||V||`` when ADMM ended.
        residual_before: Relative to the target's energy, on held-out samples, of the weights before the refit.
        residual_after: The same of what is delivered, whose refit has seen those samples where it was kept.
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
    """Choose which weights stay, on all samples; a system without a factor leaves the choice to the scaled magnitudes."""
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
    """Choose which weights stay and refit them.

    The refit on the fitted samples alone must lower the residual on the held-out ones, from that of the dense weights on the
    same support (with SparseGPT, of its own weights). Then all samples are fitted; else the weights stay as they were and the
    status is ``rejected``. What is told after it is of the weights that are returned: the held-out samples, on which both
    residuals are told, are among the fitted ones then.

    Returns:
        Weights and bias, float64, and how it went.
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
    """Solve for the weights of a support by conjugate gradient, with the bias that goes with them.

    The scaled diagonal is one, so that Jacobi's preconditioner is in the system already.
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
