"""Latencies in engines: planned by a table that is measured there before any other work, and judged by what it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pruning_core.arch.adapter import adapt
from pruning_core.artifacts.acceptance import time_limit
from pruning_core.artifacts.engines.stacks import Timer
from pruning_core.budgets import CurveBudget
from pruning_core.engines.limits import Limits, check_limits
from pruning_core.engines.registry import Found, Missing, find
from pruning_core.errors import EngineUnusable
from pruning_core.evidence.clock import StageClock
from pruning_core.measure.engine_table import EngineTable, Shapes, budget_in_engine, model_from, predicted_share, shapes_of
from pruning_core.measure.latency_table import LatencyModel
from pruning_core.report.report import Outcome
from pruning_core.run.candidate import Candidate
from pruning_core.spec.engine_targets import in_engines, phase_of
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import Phase, target_name
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What a table says of one target.

    Attributes:
        engine: The engine's name.
        phase: What is timed in it; None: a pass.
        model: The latency model by the table.
        budget: The budget of the target.
    """

    engine: str
    phase: Phase | None
    model: LatencyModel
    budget: CurveBudget


def installed_for(spec: PruneSpec, folder: Path | None) -> dict[str, Found]:
    """Look for the engines that targets name.

    Args:
        spec: The request.
        folder: The folder of engines' environments.

    Raises:
        EngineUnusable: One is missing.
    """
    installed: dict[str, Found] = {}
    for _target, name in in_engines(spec.all_targets):
        found = find(name, folder, tries=False)
        if isinstance(found, Missing):
            raise EngineUnusable(
                f"a latency is asked for in {found.engine.title}, and {found.why}; install it where jobs run: {found.how}",
                param="target.engine",
            )
        installed[name] = found
    return installed


@dataclass(frozen=True, slots=True)
class EnginePlanner:
    """Plans the latencies in engines of one run.

    Attributes:
        spec: The request.
        dense: The dense model.
        limits: What the engines can hold; None outside the layout for serving.
        installed: The engines that targets name.
        cache: Folder of kept tables; None: keep nothing.
        folder: The folder of engines' environments; None: see `registry.engines_folder`.
    """

    spec: PruneSpec
    dense: TaskModel
    limits: Limits | None
    installed: Mapping[str, Found]
    cache: Path | None
    folder: Path | None = None

    def plans(self, clock: StageClock) -> dict[str, EnginePlan]:
        """Measure the tables that targets need, and return what they say, by the names of the targets.

        Raises:
            EngineUnusable: An engine could not be timed.
            TargetUnreachable: By its table, the model will not be as fast as asked for, or not faster at all.
            UnsupportedArchitecture: The model's layers differ, or are none that the engines take.
        """
        groups, spec = adapt(self.dense.model).groups, self.spec
        if self.limits is not None:
            check_limits(self.limits, groups)
        targets = in_engines(spec.all_targets)
        if not targets:
            return {}
        shapes = shapes_of(groups, spec.artifacts.layout, self.limits)
        tables = {name: self._table(shapes, found, clock) for name, found in self.installed.items()}
        plans: dict[str, EnginePlan] = {}
        for target, name in targets:
            phase = phase_of(target, spec.task.type)
            model = model_from(tables[name], shapes, phase)
            plans[target_name(target)] = EnginePlan(name, phase, model, budget_in_engine(model, shapes, target, phase))
        return plans

    def _table(self, shapes: Shapes, found: Found, clock: StageClock) -> EngineTable:
        timer = Timer(self.spec, self.dense, found, time_limit(clock.report()), self.cache, self.folder)
        targets = in_engines(self.spec.all_targets)
        asked: list[Phase | None] = [phase_of(own, self.spec.task.type) for own, name in targets if name == found.engine.name]
        with clock.stage("profile", 2 * len(timer.stacks(shapes))) as step:  # half of the time is the engine's own
            return timer.table(shapes, asked, step)


def budgets_of(plans: Mapping[str, EnginePlan]) -> dict[str, CurveBudget]:
    """Return the budgets of plans, by the names of their targets."""
    return {name: plan.budget for name, plan in plans.items()}


def judged(plans: Mapping[str, EnginePlan], candidate: Candidate, outcome: Outcome) -> Outcome:
    """Return an outcome whose target, if it is a latency in an engine, was achieved as far as the engine measured."""
    plan = plans.get(target_name(candidate.target))
    if plan is None:
        return outcome
    predicted = predicted_share(plan.model, candidate.measured.shapes.recounted.kept)
    row = next((own for own in outcome.engines if own.engine == plan.engine), None)
    measured = None if row is None else row.latency_share(plan.phase)
    target = outcome.target.but(
        engine=plan.engine,
        phase=plan.phase,
        predicted=predicted,
        achieved=predicted if measured is None else measured,  # the verdict refuses what was not measured
    )
    return outcome.but(target=target)
