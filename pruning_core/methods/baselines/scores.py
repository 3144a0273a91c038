"""The baselines ``magnitude`` and ``random``: their scores go through the same search and recovery as other methods'."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pruning_core.arch.linear import weight_of
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import held
from pruning_core.arch.sublayer import Sublayer
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.evidence.context import Context
from pruning_core.methods.unit_removal import Scores, UnitMethod, UnitPlanner
from pruning_core.search.mask import search_mask
from pruning_core.shapes import Float
from pruning_core.spec.prune import PruneSpec


class _SearchOnly:
    def plan(self, scores: Scores, budget: Budget | CurveBudget, ctx: Context) -> Mask:
        """Search the mask with the largest sum of scores; the search is exact."""
        with ctx.clock.stage("search"):
            return search_mask(scores.importance, ctx.groups, budget, ctx.layers, ctx.limits)


class MagnitudeMethod(_SearchOnly):
    """Importance of a unit: the squared norm of its columns of the output projection."""

    def prepare(self, ctx: Context) -> Scores:
        """Compute the norms from the dense weights."""
        with ctx.clock.stage("score"):
            return Scores([_norms(sublayer).cpu() for sublayer in ctx.evidence.dense.sublayers])


def _norms(sublayer: Sublayer) -> Float[Tensor, " units"]:
    with held(sublayer.block):
        return weight_of(sublayer.output).double().square().sum(0).unflatten(0, (-1, sublayer.unit_width)).sum(1)


class RandomMethod(_SearchOnly):
    """Importance of a unit: uniform noise."""

    def prepare(self, ctx: Context) -> Scores:
        """Draw the importances with the run's seed."""
        generator = ctx.generator("random-scores")
        with ctx.clock.stage("score"):
            return Scores([torch.rand(group.size, generator=generator) for group in ctx.groups])


def prepare_magnitude(spec: PruneSpec, ctx: Context, cache: Path | None) -> UnitPlanner:
    """Compute the norms of all units, and return the planner for them."""
    return _prepare(MagnitudeMethod(), spec, ctx, cache)


def prepare_random(spec: PruneSpec, ctx: Context, cache: Path | None) -> UnitPlanner:
    """Draw an importance for every unit, and return the planner for them."""
    return _prepare(RandomMethod(), spec, ctx, cache)


def _prepare(method: UnitMethod, spec: PruneSpec, ctx: Context, cache: Path | None) -> UnitPlanner:
    return UnitPlanner(spec, ctx, method, method.prepare(ctx), cache)
