"""Labels of rows: parsed by the task's kind of label, and turned into class indices of the model's head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never, cast

from pruning_core.data.faults import UNLABELLED, check_label, check_name, label_is_wrong
from pruning_core.data.head import check_head
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

if TYPE_CHECKING:
    from pruning_core.data.rows import Rows


def parse_labels(task: TaskSpec, values: Sequence[Any]) -> list[Label | None]:
    """Parse labels by the task's kind of label; None for a missing label.

    Raises:
        DatasetInvalid: A value is not a label of this kind.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    found: list[Label | None] = []
    for value in values:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            found.append(None)
            continue
        label = kind.parse(value)
        if label is None:
            raise label_is_wrong(task, f"column {task.columns.label!r} holds {_words(value)}")
        found.append(None if label == UNLABELLED and kind.classes == "one" else label)
    return found


def _words(value: object) -> str:
    return "text" if isinstance(value, str) else "lists or objects" if isinstance(value, list | Mapping) else "numbers"


def with_classes(task: TaskSpec, rows: Rows, names: Sequence[str]) -> Rows:
    """Check labels against the classes of the model's head, and turn names of classes into indices.

    Args:
        task: The task that the labels are for.
        rows: Rows with parsed labels.
        names: Names of the model's classes.

    Raises:
        DatasetInvalid: A label names a class that the head does not have, the labels do not fit the inputs of their rows, or
            the head does not fit the task's type.
    """
    check_head(task, len(names), names)
    kind, labels = KINDS[task.type].labels, rows.labels
    if labels is None or kind is None:
        return replace(rows, names=tuple(names))
    index = {name: place for place, name in enumerate(names)}

    def place(item: float | str) -> int:
        if isinstance(item, str):
            check_name(item, names)
            return index[item]
        check_label(item, len(names))
        return int(item)

    match kind.classes:
        case "none":
            placed = labels
        case "one":
            placed = tuple(place(cast("float | str", label)) for label in labels)
        case "several":
            placed = tuple(tuple(place(item) for item in cast("tuple[int | str, ...]", label)) for label in labels)
        case _:
            assert_never(kind.classes)
    fault = kind.fault(rows.texts, placed)
    if fault is not None:
        raise DatasetInvalid(fault, param="task.columns.label")
    return replace(rows, labels=placed, names=tuple(names))
