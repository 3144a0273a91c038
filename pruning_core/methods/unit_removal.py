"""Methods that remove units: plans that are masks, and the planner that finds the mask for a target.

A target that counts (sparsity, MACs, parameters) is met at once; a latency is approached by measuring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

import torch
from torch import Tensor

from pruning_core.arch.adapter import clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.budgets import Budget, CurveBudget, budget_for
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context
from pruning_core.measure.fidelity import Fidelity
from pruning_core.measure.latency import measure_latency
from pruning_core.measure.latency_table import LatencyModel, latency_model
from pruning_core.methods.storage import StoragePlanner
from pruning_core.methods.unit_plan import UnitPlan, unreached
from pruning_core.report.outlook import OutlookReport
from pruning_core.search.mask import search_mask
from pruning_core.search.outlook import foresee
from pruning_core.search.stock_layers import choose_layers
from pruning_core.shapes import Float
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import (
    BytesTarget,
    KeepTarget,
    LatencyTarget,
    PatternTarget,
    SparsityTarget,
    Target,
    any_rounds,
    target_name,
)

# How often a latency is planned again, each time further below the budget, when the finished checkpoint has missed it.
_REPLANS = 2
# The aim lies below the budget by this share of the tolerance: noise of the clock must not carry the result over the budget.
_AIM = 0.4
_ATTEMPTS = 4
# A measurement this near to the aim, as a share of the tolerance, ends the attempts.
_CLOSE = 0.25


@dataclass(frozen=True, slots=True)
class Scores:
    """Statistics of the dense model, reusable for every budget.

    Attributes:
        importance: One tensor for each sublayer, with one value >= 0 for each unit.
        gradients: Mask gradients of each sublayer, (samples, units); None if the method keeps none.
    """

    importance: Sequence[Float[Tensor, " units"]]
    gradients: Sequence[Float[Tensor, "samples units"]] | None = None


class UnitMethod(Protocol):
    """A criterion that chooses the units that stay."""

    def prepare(self, ctx: Context) -> Scores:
        """Gather the statistics for the choice; they do not depend on the budget."""
        ...

    def plan(self, scores: Scores, budget: Budget | CurveBudget, ctx: Context) -> Mask:
        """Choose the mask under a budget."""
        ...


class UnitPlanner:
    """Planner of the masks of one run. It measures the latency table once, when a target first needs it."""

    def __init__(self, spec: PruneSpec, ctx: Context, method: UnitMethod, scores: Scores, cache: Path | None) -> None:
        """Keep a method and its statistics. ``cache`` is the folder of kept latency tables."""
        self._spec, self._ctx, self._method, self._scores, self._cache = spec, ctx, method, scores, cache
        self._latency: LatencyModel | None = None
        self._layers: tuple[int, ...] | None = None
        self._fidelity = Fidelity(ctx, spec.recovery)
        self._storage = StoragePlanner(spec, ctx, scores.importance)
        self._notes = unreached(scores.importance, ctx.groups)

    def plans(self, target: Target) -> Iterator[UnitPlan]:
        """Yield the mask of largest importance that meets the target; for a latency, further ones if measurements miss it.

        Raises:
            TargetUnreachable: No mask can meet it.
        """
        self._layers = None
        match target:
            case LatencyTarget() if target.engine is not None:  # its table is measured already, and the engine itself judges
                yield self._of(self._plan(self._ctx.budgets[target_name(target)]))
            case LatencyTarget():
                for replan in range(1 + _REPLANS):
                    aim = target.keep - (_AIM + replan * (1 - _AIM) / 2) * target.tolerance
                    yield self._of(self._approach(target, aim))
            case BytesTarget():
                yield dataclasses.replace(self._storage.plan(target), notes=self._notes)
            case SparsityTarget() | KeepTarget():
                yield self._of(self._plan(self._budget(target)))
            case PatternTarget():
                raise PruningError("a pattern target needs a method that sets weights to zero", param="target")
            case _:
                assert_never(target)

    def _of(self, mask: Mask) -> UnitPlan:
        return UnitPlan(mask, notes=self._notes)

    def outlook(self, bytes_per_parameter: float) -> OutlookReport | None:
        """Count the masks of other budgets.

        None in the stock layout, where trial repairs choose the layers, and where weights are rounded, too.
        """
        if any_rounds(self._spec.all_targets) or self._spec.artifacts.layout == "stock":
            return None
        ctx, importance = self._ctx, self._scores.importance
        return foresee(
            importance,
            ctx.groups,
            lambda target: search_mask(importance, ctx.groups, self._budget(target), limits=ctx.limits),
            length=ctx.evidence.calibration.mean_length,
            parameters=ctx.task_model.parameter_count(),
            bytes_per_parameter=bytes_per_parameter,
        )

    def _budget(self, target: SparsityTarget | KeepTarget) -> Budget:
        return budget_for(
            target,
            self._ctx.groups,
            total_params=self._ctx.task_model.whole_parameters,
            left_params=self._ctx.task_model.parameter_count(),
            length=self._ctx.evidence.calibration.mean_length,
            floors=None if self._ctx.limits is None else [self._ctx.limits.floor(group) for group in self._ctx.groups],
        )

    def _approach(self, target: LatencyTarget, aim: float) -> Mask:
        """Plan by the latency table, time the sliced model beside the dense one, and correct the budget by the table's error.

        Widths alone decide the time, so nothing is repaired yet. Only measured masks count: the one whose latency is nearest to
        the aim is returned.
        """
        table = self._table()
        planned, best = aim, None
        for attempt in range(_ATTEMPTS):
            mask = self._plan(table.budget(target, keep=planned))
            achieved = self._measure(mask, attempt)
            if best is None or abs(achieved - aim) < abs(best[1] - aim):
                best = mask, achieved
            if abs(achieved - aim) <= _CLOSE * target.tolerance:
                break
            planned *= aim / achieved
        assert best is not None, "there is at least one attempt"
        return best[0]

    def _plan(self, budget: Budget | CurveBudget) -> Mask:
        """Let the method choose a mask within the budget. In the stock layout the layers are chosen once for a target."""
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
                ctx = self._ctx
                self._latency = latency_model(ctx.task_model, ctx.evidence.dense, self._spec.latency, self._cache, ctx.limits)
        return self._latency

    def _measure(self, mask: Mask, attempt: int) -> float:
        """Measure the latency of the sliced model, as a share of the dense model's."""
        sliced = clone(self._ctx.task_model.model)
        slice_(sliced, mask)
        quick = self._spec.latency.at_most(max(5, self._spec.latency.repeats // 2))
        with self._ctx.clock.stage("profile"), torch.inference_mode():
            report = measure_latency(
                self._ctx.task_model,
                self._ctx.task_model.with_model(sliced),
                quick,
                self._ctx.generator(f"latency-{attempt}"),
                lambda _repeat: None,
            )
        return report.pruned / report.dense
