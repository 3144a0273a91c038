"""``fisher-cg``: Fisher mask search, rearrangement, and recovery by conjugate gradient.

Li, Zhu, Sun 2024, *A novel iteration scheme with conjugate gradient for faster pruning on transformer models*
(doi 10.1007/s40747-024-01595-w), in the framework of Kwon et al. 2022 (arXiv 2204.09656). Recovery is in
`pruning_core.recovery`, which serves every method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pruning_core.arch.masks import Mask
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.evidence.context import Context
from pruning_core.kept.piece import Json, Piece, packed, unpacked
from pruning_core.methods.fisher_cg.interactions import joint_importance
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.methods.unit_removal import Scores, UnitPlanner
from pruning_core.search.mask import search_mask
from pruning_core.search.rearrange import rearrange_units
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.tasks import KINDS
from pruning_core.stats.dense_states import ensure_states
from pruning_core.stats.fisher import by_routing, importance, loss_sum, mask_statistics, probe


@dataclass(frozen=True, slots=True)
class FisherCGMethod:
    """Importance of a unit: the Fisher information of its mask, with or without labels, alone or with what others can say.

    Attributes:
        options: The method's options.
        recovery: The repair that follows, whose ridge prices are for.
    """

    options: FisherCG
    recovery: RecoverySpec = field(default_factory=RecoverySpec)

    def prepare(self, ctx: Context) -> Scores:
        """Find the scores of an earlier run, or compute them; either way the dense model's states are there afterwards."""
        sublayers = len(ctx.evidence.dense.sublayers)
        with ctx.clock.stage("score", len(ctx.evidence.calibration.batches) + (sublayers if self._joint else 0)) as step:
            found = ctx.statistics.found(
                "scores",
                lambda: self._key(ctx),
                lambda: self._computed(ctx, step),
                pack=_as_piece,
                unpack=lambda piece: _from_piece(piece, sublayers),
            )
            ensure_states(ctx, step, as_in="units")
        return found

    @property
    def _joint(self) -> bool:
        return self.options.interactions == "kronecker"

    def _uses_labels(self, ctx: Context) -> bool:
        return KINDS[ctx.task_model.task_type].has_loss and self.options.labels != "ignore"

    def _key(self, ctx: Context) -> dict[str, Json]:
        """What the scores depend on beside what all statistics of the run do."""
        own = {
            "method": self.options.name,
            "labels": self._uses_labels(ctx),
            "representation": self.options.representation,
            "rearrange": self.options.rearrange,
            "damping": self.recovery.damping if self._joint else None,
            "seed": ctx.seed,
            **({} if self.options.experts == "fisher" else {"experts": self.options.experts}),
        }
        return {**ctx.evidence.key, **own}

    def _computed(self, ctx: Context, step: Callable[[int], None]) -> Scores:
        """Compute per-sample mask gradients with one forward pass, and one backward pass over activations."""
        evidence, task_type = ctx.evidence, ctx.task_model.task_type
        batches = evidence.calibration.batches
        objective = loss_sum(task_type) if self._uses_labels(ctx) else probe(task_type, ctx.generator("probe"))
        statistics = mask_statistics(
            ctx.task_model,
            evidence.dense,
            batches,
            objective,
            samples=evidence.calibration.samples,
            dtype=evidence.dtype,
            on_batch=step,
            states=evidence.states,
            keep_gradients=self.options.rearrange,
            keep_factors=self._joint,
        )
        found = importance(statistics, representation=self.options.representation)
        if self._joint:
            found = joint_importance(
                statistics,
                found,
                evidence.dense,
                damping=self.recovery.damping,
                on_sublayer=lambda done: step(len(batches) + done),
            )
        if self.options.experts != "fisher":
            found = by_routing(found, statistics, by=self.options.experts)
        gradients = [own.gradients for own in statistics if own.gradients is not None]
        return Scores(found, gradients or None)

    def plan(self, scores: Scores, budget: Budget | CurveBudget, ctx: Context) -> Mask:
        """Search the exact optimum of the diagonal Fisher information, then rearrange units within each sublayer if asked."""
        with ctx.clock.stage("search"):
            mask = search_mask(scores.importance, ctx.groups, budget, ctx.layers, ctx.limits)
        if not self.options.rearrange or scores.gradients is None:
            return mask
        rearranged = []
        with ctx.clock.stage("rearrange", len(mask.kept)) as step:
            for done, (gradients, kept) in enumerate(zip(scores.gradients, mask.kept, strict=True), start=1):
                rearranged.append(rearrange_units(gradients, kept))
                step(done)
        return Mask(tuple(rearranged))


def _as_piece(scores: Scores) -> Piece:
    """Return scores as a piece to keep."""
    return packed([*scores.importance, *(scores.gradients or ())])


def _from_piece(piece: Piece, sublayers: int) -> Scores:
    """Return the scores that `_as_piece` has packed."""
    parts = unpacked(piece)
    return Scores(parts[:sublayers], parts[sublayers:] or None)


def prepare(spec: PruneSpec, ctx: Context, cache: Path | None) -> UnitPlanner:
    """Score the units of the dense model, and return the planner for the scores."""
    assert isinstance(spec.method, FisherCG), "the registry leads here by these options"
    method = FisherCGMethod(spec.method, spec.recovery)
    return UnitPlanner(spec, ctx, method, method.prepare(ctx), cache)
