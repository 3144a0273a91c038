"""Which planner answers for which method, and what planners give: units that stay, or a pattern for every matrix."""

from __future__ import annotations

from pathlib import Path

from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Context
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.admm_pattern.plan import PatternPlan, PatternPlanner
from pruning_core.methods.block_lasso.plan import BlockPlan, BlockPlanner
from pruning_core.methods.registry import method_for
from pruning_core.methods.units import Planner
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import PruneSpec

Plan = Mask | PatternPlan | BlockPlan
AnyPlanner = Planner | PatternPlanner | BlockPlanner


def planner_for(spec: PruneSpec, ctx: Context, cache: Path | None) -> AnyPlanner:
    """Let the spec's method gather its statistics, and give what plans from them.

    Args:
        spec: What was asked for.
        ctx: Dense model and evidence.
        cache: Folder of kept latency tables.
    """
    if isinstance(spec.method, AdmmPattern):
        return PatternPlanner(spec.method, ctx)
    if isinstance(spec.method, BlockLasso):
        return BlockPlanner(spec.method, ctx)
    method = method_for(spec.method)
    return Planner(spec, ctx, method, method.prepare(ctx), cache)
