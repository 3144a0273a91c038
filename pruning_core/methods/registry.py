"""The planner of a spec's method."""

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
    """Let the spec's method gather its statistics, and return its planner.

    The method's options name the function that does so (`pruning_core.spec.options.MethodOptions.planner`).

    Args:
        spec: The request.
        ctx: Dense model and evidence.
        cache: Folder of kept latency tables; None: keep nothing.
    """
    prepare = cast("Prepare", pkgutil.resolve_name(spec.method.planner))
    return prepare(spec, ctx, cache)
