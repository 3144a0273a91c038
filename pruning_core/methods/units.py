"""From a target to the mask that meets it: counts are exact at once, a latency is approached by measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from pruning_core.arch.adapter import clone, slice_
from pruning_core.arch.masks import Mask
from pruning_core.budgets import Budget, CurveBudget, budget_for
from pruning_core.evidence.context import Context
from pruning_core.measure.fidelity import Fidelity
from pruning_core.measure.latency import measure_latency
from pruning_core.measure.latency_table import LatencyModel, latency_model
from pruning_core.methods.base import Method, Scores
from pruning_core.search.stock import choose_layers
from pruning_core.spec.prune import KeepTarget, LatencySpec, LatencyTarget, PatternTarget, PruneSpec, SparsityTarget, Target

# How often a latency that the finished checkpoint missed is planned anew, and how much further below the budget each time.
_REPLANS = 2
# Where inside the tolerance a latency is aimed at, as a share of it: the clock must not carry the result over the budget.
_AIM = 0.4
_ATTEMPTS = 4


class Planner:
    """Plans masks for targets of one run; the latency table is measured once, when the first target needs it."""

    def __init__(self, spec: PruneSpec, ctx: Context, method: Method, scores: Scores, cache: Path | None) -> None:
        """Take a method and its statistics. ``cache`` is the folder of kept latency tables."""
        self._spec, self._ctx, self._method, self._scores, self._cache = spec, ctx, method, scores, cache
        self._latency: LatencyModel | None = None
        self._layers: tuple[int, ...] | None = None
        self._fidelity = Fidelity(ctx, spec.recovery)

    def plans(self, target: Target) -> Iterator[Mask]:
        """Give the mask of largest importance that meets the target; for a latency, others to try should its clock say no.

        Raises:
            TargetUnreachable: No mask can.
        """
        self._layers = None
        if isinstance(target, LatencyTarget):
            for replan in range(1 + _REPLANS):
                yield self._approach(target, target.keep - (_AIM + replan * (1 - _AIM) / 2) * target.tolerance)
        else:
            assert not isinstance(target, PatternTarget), "a validated spec has such targets with a pattern method only"
            yield self._plan_counts(target)

    def _plan_counts(self, target: SparsityTarget | KeepTarget) -> Mask:
        budget = budget_for(
            target,
            self._ctx.groups,
            total_params=self._ctx.task_model.parameter_count(),
            length=self._ctx.evidence.calibration.mean_length,
        )
        return self._plan(budget)

    def _approach(self, target: LatencyTarget, aim: float) -> Mask:
        """Plan by the table, time the sliced model beside the dense one, correct the budget by what the table missed.

        Widths alone decide the time, so nothing is repaired yet.
        """
        table = self._table()
        planned = aim
        mask = self._plan(table.budget(target, keep=planned))
        for attempt in range(_ATTEMPTS):
            achieved = self._measure(mask, attempt)
            if abs(achieved - aim) <= 0.25 * target.tolerance:
                break
            planned *= aim / achieved
            mask = self._plan(table.budget(target, keep=planned))
        return mask

    def _plan(self, budget: Budget | CurveBudget) -> Mask:
        """Let the method choose within the budget; the layers that stay in the stock layout are chosen once for a target."""
        if self._spec.artifacts.layout != "stock":
            return self._method.plan(self._scores, budget, self._ctx)
        if self._layers is None:
            self._layers = choose_layers(
                self._scores.importance,
                self._ctx.groups,
                budget,
                lambda layers: self._fidelity.divergence(self._plan_stock(budget, layers)),
            )
        return self._plan_stock(budget, self._layers)

    def _plan_stock(self, budget: Budget | CurveBudget, layers: tuple[int, ...]) -> Mask:
        return self._method.plan(self._scores, budget, dataclasses.replace(self._ctx, layers=layers))

    def _table(self) -> LatencyModel:
        if self._latency is None:
            with self._ctx.clock.stage("profile"):
                self._latency = latency_model(self._ctx.task_model, self._ctx.evidence.dense, self._spec.latency, self._cache)
        return self._latency

    def _measure(self, mask: Mask, attempt: int) -> float:
        """Give the latency of the sliced model as a share of the dense model's."""
        sliced = clone(self._ctx.task_model.model)
        slice_(sliced, mask)
        quick: LatencySpec = self._spec.latency.model_copy(update={"repeats": max(5, self._spec.latency.repeats // 2)})
        with self._ctx.clock.stage("profile"), torch.inference_mode():
            report = measure_latency(
                self._ctx.task_model,
                self._ctx.task_model.with_model(sliced),
                quick,
                self._ctx.generator(f"latency-{attempt}"),
                lambda _repeat: None,
            )
        return report.pruned / report.dense
