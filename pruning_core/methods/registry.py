"""From a spec to the planner of its method."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

from pruning_core.evidence.context import Context
from pruning_core.methods.base import Planner
from pruning_core.spec.prune import PruneSpec

Prepare = Callable[[PruneSpec, Context, Path | None], Planner]


def planner_for(spec: PruneSpec, ctx: Context, cache: Path | None) -> Planner:
    """Let the spec's method gather its statistics, and return what plans from them.

    The method's options say where it is (`pruning_core.spec.options.MethodOptions.planner`).

    Args:
        spec: What was asked for.
        ctx: Dense model and evidence.
        cache: Folder of kept latency tables; nothing is kept when None.
    """
    prepare = cast("Prepare", pkgutil.resolve_name(spec.method.planner))
    return prepare(spec, ctx, cache)
