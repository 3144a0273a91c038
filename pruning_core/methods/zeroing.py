"""Common parts of the methods that set weights to zero: pruning matrix by matrix, its reports, and hints for users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pruning_core.arch.adapter import ModelAdapter, adapt
from pruning_core.arch.linear import weight_of
from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Evidence
from pruning_core.methods.base import Applied, Choosing, TrainingPlan
from pruning_core.patterns.project import Chosen, Projection
from pruning_core.recovery.matrix_fit import Fit
from pruning_core.recovery.sparsify import sparsify_
from pruning_core.report.report import MatrixReport, Outcome, SolverStatus, SublayerReport
from pruning_core.spec.options import ZeroingOptions
from pruning_core.spec.prune import RecoverySpec
from pruning_core.spec.training import LassoTraining, PatternTraining, TrainingOptions
from pruning_core.training.phases import Part
from pruning_core.training.recipe import FirstChoice, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The status of a sublayer is the worst of its matrices': the first of these that occurs.
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


def apply_zeros_(
    student: PreTrainedModel,
    rule: Projection | Mapping[str, Projection],
    evidence: Evidence,
    options: ZeroingOptions,
    recovery: RecoverySpec,
    *,
    on_sublayer: Callable[[int], None],
) -> Applied:
    """Set weights to zero and refit those that stay, matrix after matrix, in place.

    Args:
        student: A clone of the dense model.
        rule: Projection onto the allowed supports; or one projection for each matrix, by its module path.
        evidence: Dense model and calibration batches.
        options: Options of the selection and the refit.
        recovery: Decides whether to refit.
        on_sublayer: Called after each sublayer with the number done.
    """
    fits = sparsify_(adapt(student), rule, evidence, options, recovery, on_sublayer=on_sublayer)
    mask = Mask.full([group.size for group in evidence.dense.groups])
    return Applied(mask, sublayer_reports(fits, evidence.dense), fits)


def supports_left(chosen: PreTrainedModel) -> dict[str, Chosen]:
    """Return the weights that are not zero in a model as the choice for each matrix, by its module path."""
    return {path: Chosen(weight_of(linear).detach().T != 0) for path, linear in adapt(chosen).linears.items()}


def training_plan(
    make: Callable[[Part], Recipe],
    training: PatternTraining | LassoTraining,
    first: TrainingOptions,
    refit: ZeroingOptions,
    kept: Callable[[PreTrainedModel], Mapping[str, Projection]] = supports_left,
) -> TrainingPlan:
    """Return the plan of a trained tier: in one training, or in two with a refit of the dense weights between them.

    Args:
        make: Makes the recipe of a part of the training.
        training: Options of the trained tier.
        first: Those of the training that chooses, where there are two.
        refit: Options of the refit; where a choice leaves supports, their selection is one that takes them as they are.
        kept: Returns the projections of the refit from the model that holds the choice.
    """
    from_dense = training.start == "dense"
    if not (from_dense and training.refit and training.share):
        return TrainingPlan(make("all"), training, from_dense=from_dense)
    choosing = Choosing(FirstChoice(make("choice"), first, training.share), refit, kept)
    return TrainingPlan(make("tuning"), training, from_dense=True, choosing=choosing)


def sublayer_reports(fits: Sequence[Fit], dense: ModelAdapter) -> tuple[SublayerReport, ...]:
    """Report each sublayer from the fits of its matrices: the output projection's residuals, and the worst status."""
    reports: list[SublayerReport] = []
    following = iter(fits)
    for sublayer in dense.sublayers:
        own = [next(following) for _ in range(len(sublayer.parts) + 1)]
        refitted = any(fit.refit_steps for fit in own)
        reports.append(
            SublayerReport(
                solver="cg" if refitted else "none",
                status=next(status for status in _WORST if any(fit.status == status for fit in own)),
                iterations=max(fit.refit_steps for fit in own),
                residual_before=own[-1].residual_before if refitted else None,
                residual_after=own[-1].residual_after if refitted else None,
            )
        )
    return tuple(reports)


def matrix_report(fit: Fit, weights: int, nonzeros: int) -> MatrixReport:
    """Report a matrix: its counts of weights and nonzeros, and its fit."""
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


# Wording of the hint, by whether units were removed physically as well.
_WHERE = {False: "they", True: "those whose unit was not removed"}
_GAIN = {False: "the model is no smaller, and no faster on", True: "only removed units make the model smaller, and faster on"}


def zero_hints(outcome: Outcome) -> list[str]:
    """Return what zeros do not save in a dense layout, and which weights blocks leave dense."""
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
        parts = [f"the last {count} {what}" for count, what in ((first.outputs, "outputs"), (first.inputs, "inputs")) if count]
        found.append(
            f"{left} weights stay dense, since blocks of {pattern.pattern} do not divide {len(pattern.dense_remainders)} "
            f"matrices; in {first.name} {' and '.join(parts)}"
        )
    return found
