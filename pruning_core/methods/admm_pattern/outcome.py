"""What a checkpoint with a sparsity pattern achieved: the matrices recounted from its files, beside how they were fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import is_transposed
from pruning_core.methods.admm_pattern.plan import PatternPlan
from pruning_core.patterns.recount import arrangements, recount
from pruning_core.recovery.matrix import Fit
from pruning_core.report.report import MatrixReport, Outcome, PatternReport, SolverStatus, SparsityReport, SublayerReport

# The status of a half of a block is the worst of its matrices'.
_WORST: tuple[SolverStatus, ...] = (
    "breakdown",
    "non_finite",
    "rejected",
    "max_iterations",
    "stagnated",
    "jittered",
    "converged",
    "skipped",
)


def with_pattern(
    outcome: Outcome, plan: PatternPlan, fits: Sequence[Fit], folder: Path, dense: ModelAdapter, *, length: float
) -> Outcome:
    """Complete an outcome whose shapes are the dense model's by what its matrices hold.

    Args:
        outcome: Counted by shapes.
        plan: What the matrices were held to.
        fits: How each went.
        folder: The written checkpoint.
        dense: The dense model's sublayers.
        length: Mean real sequence length of the task, in tokens.
    """
    matrices = {path: is_transposed(linear) for path, linear in dense.linears.items()}
    counts = recount(folder, matrices, plan.block, plan.pool)
    weights, zeros = sum(count.weights for count in counts), sum(count.zeros for count in counts)
    covered_zeros = sum(count.covered_zeros for count in counts) / max(1, sum(count.covered for count in counts))
    achieved = covered_zeros if outcome.target.metric == "pattern" else zeros / weights
    return outcome.model_copy(
        update={
            "target": outcome.target.model_copy(update={"achieved": achieved}),
            "sparsity": SparsityReport(achieved=zeros / weights),
            "pattern": PatternReport(
                pattern=plan.options.pattern,
                selection=plan.options.selection,
                blocks=sum(count.blocks for count in counts),
                violations=sum(count.violations for count in counts),
                zeros=zeros,
                prunable_weights=weights,
                # A weight is one multiply-accumulate a token; what attention multiplies besides has no zeros.
                nonzero_macs=round(outcome.macs.dense - zeros * length),
                dense_remainders=tuple(count.remainder for count in counts if count.remainder is not None),
                pool=arrangements(plan.pool),
                matrices=tuple(
                    matrix_report(fit, count.weights, count.weights - count.zeros)
                    for fit, count in zip(fits, counts, strict=True)
                ),
            ),
        }
    )


def sublayer_reports(fits: Sequence[Fit], dense: ModelAdapter) -> tuple[SublayerReport, ...]:
    """Sum the matrices of each sublayer up: the residuals are those of its output projection, the status is the worst."""
    reports: list[SublayerReport] = []
    following = iter(fits)
    for sublayer in dense.sublayers:
        own = [next(following) for _ in range(len(sublayer.parts) + 1)]
        refitted = any(fit.refit_steps for fit in own)
        reports.append(
            SublayerReport(
                solver="pcg" if refitted else "none",
                status=next(status for status in _WORST if any(fit.status == status for fit in own)),
                iterations=max(fit.refit_steps for fit in own),
                residual_before=own[-1].residual_before if refitted else None,
                residual_after=own[-1].residual_after if refitted else None,
            )
        )
    return tuple(reports)


def matrix_report(fit: Fit, weights: int, nonzeros: int) -> MatrixReport:
    """Put what a matrix holds beside how it was fitted."""
    return MatrixReport(
        name=fit.name,
        weights=weights,
        nonzeros=nonzeros,
        status=fit.status,
        iterations=fit.iterations,
        refit_steps=fit.refit_steps,
        primal=fit.primal,
        dual=fit.dual,
        residual_before=fit.residual_before,
        residual_after=fit.residual_after,
    )


# Whether units were removed physically as well.
_WHERE = {False: "they", True: "those whose unit was not removed"}
_GAIN = {False: "the model is no smaller, and no faster on", True: "only removed units make the model smaller, and faster on"}


def pattern_warnings(outcome: Outcome) -> list[str]:
    """Say what a pattern does not buy, and what it leaves dense."""
    pattern, latency = outcome.pattern, outcome.latency_ms
    if pattern is None:
        return []
    share = pattern.zeros / pattern.prunable_weights
    remaining = pattern.nonzero_macs / outcome.macs.dense
    removed = outcome.macs.pruned < outcome.macs.dense
    layout = (
        f"{share:.1%} of the prunable weights are zero, and {_WHERE[removed]} are stored and multiplied all the same: in this "
        f"dense layout {_GAIN[removed]} devices that do not skip zeros (measured {latency.speedup:.2f}x on "
        f"{latency.device}); where zeros are skipped, {remaining:.1%} of the multiply-accumulates remain"
    )
    found = [layout]
    if pattern.products is not None:
        found.append(pattern.products.said)
    if pattern.dense_remainders:
        left = sum(own.weights for own in pattern.dense_remainders)
        first = pattern.dense_remainders[0]
        parts = [f"its last {count} {what}" for count, what in ((first.outputs, "outputs"), (first.inputs, "inputs")) if count]
        found.append(
            f"{left} weights stay dense, since blocks of {pattern.pattern} do not divide {len(pattern.dense_remainders)} "
            f"matrices; of {first.name} {' and '.join(parts)}"
        )
    return found
