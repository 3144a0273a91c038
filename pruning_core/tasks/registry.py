"""The family that computes for each type of task, as the type's row names it."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import cast

from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.tasks.base import TaskFamily


def family_of(task_type: TaskType) -> TaskFamily:
    """Return the family of a type."""
    return _family(KINDS[task_type].family)


@cache
def _family(path: str) -> TaskFamily:
    return cast("type[TaskFamily]", resolve_name(path))()
