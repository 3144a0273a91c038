"""A latency is approached by measuring: what is given in the end is what was measured nearest to the aim."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pruning_core.arch.masks import Mask
from pruning_core.methods import unit_removal
from pruning_core.methods.unit_removal import Scores, UnitPlanner
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import LatencyTarget

TARGET = LatencyTarget(metric="latency", keep=0.5, tolerance=0.05)  # aimed at 0.48


class Counting:
    """Plans a mask of one unit more each time that it is asked."""

    def __init__(self):
        self.planned = 0

    def prepare(self, ctx):
        return Scores([])

    def plan(self, scores, budget, ctx):
        self.planned += 1
        return Mask((torch.ones(self.planned, dtype=torch.bool),))


@pytest.fixture
def planner_that_measures(monkeypatch):
    """Make a planner whose clock reads what it is given, one reading a mask."""

    def make(readings):
        timed = []
        monkeypatch.setattr(unit_removal, "latency_model", lambda *_args: SimpleNamespace(budget=lambda target, keep: keep))
        monkeypatch.setattr(unit_removal, "clone", lambda model: model)
        monkeypatch.setattr(unit_removal, "slice_", lambda _model, mask: timed.append(mask.counts()[0]))
        clock = iter(readings)
        monkeypatch.setattr(unit_removal, "measure_latency", lambda *_args: SimpleNamespace(pruned=next(clock), dense=1.0))
        spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "target": TARGET.model_dump()})
        stage = SimpleNamespace(stage=lambda *_args: torch.no_grad())
        model = SimpleNamespace(model=None, with_model=lambda model: model)
        evidence = SimpleNamespace(dense=None, calibration=SimpleNamespace(samples=8))
        ctx = SimpleNamespace(clock=stage, task_model=model, evidence=evidence, limits=None, generator=lambda _purpose: None)
        ctx.groups = []
        return UnitPlanner(spec, ctx, Counting(), Scores([]), None), timed

    return make


@pytest.mark.parametrize(
    ("readings", "nearest"),
    [
        ((0.30, 0.46, 0.70, 0.60), 2),
        ((0.70, 0.65, 0.60, 0.55), 4),
        ((0.55, 0.60, 0.65, 0.70), 1),
        ((0.481,), 1),
    ],
    ids=["in between", "the last", "the first", "at once"],
)
def test_the_mask_that_was_measured_nearest_is_given(planner_that_measures, readings, nearest):
    planner, timed = planner_that_measures(readings)
    plan = next(planner.plans(TARGET))
    assert plan.mask.counts() == [nearest]
    assert nearest in timed, "a mask that nobody has timed proves nothing"
    assert len(timed) == len(readings)
