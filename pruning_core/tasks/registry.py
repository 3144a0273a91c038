"""The task family of each task type, resolved from the type's row in `pruning_core.spec.tasks`."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import cast

from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.tasks.base import TaskFamily


def family_of(task_type: TaskType) -> TaskFamily:
    """Return the family of a task type."""
    return _family(KINDS[task_type].family)


@cache
def _family(path: str) -> TaskFamily:
    return cast("type[TaskFamily]", resolve_name(path))()
