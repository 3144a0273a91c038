"""Whether a metric says anything on the labels of a validation split. Torch-free.

A rank correlation of scores that are all alike is no number; F1 without a row of the counted class is 0 for every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS


def check_defined(task: TaskSpec, labels: Sequence[Label], names: Sequence[str]) -> tuple[str, ...]:
    """Refuse validation labels on which the metric of the task is undefined.

    Args:
        task: Names the metric.
        labels: Labels of the rows that are judged, placed by `pruning_core.data.labels.placed`.
        names: Names of the model's classes; empty for tasks without classes.

    Returns:
        A sentence where the metric is the same for every model.

    Raises:
        DatasetInvalid: The metric is undefined on these labels.
    """
    if KINDS[task.type].labels is None or not labels:
        return ()
    if task.metric == "spearman" and len(set(labels)) < 2:
        raise DatasetInvalid(
            f"the {len(labels)} validation rows that are judged have one and the same score, and the rank correlation with "
            "scores that are all alike is undefined; give validation rows whose scores differ",
            param="task.columns.label",
        )
    why = _same_for_all(task, labels, names)
    return () if why is None else (f"{why}, so that {task.metric} is 0 whatever a model answers",)


def _same_for_all(task: TaskSpec, labels: Sequence[Label], names: Sequence[str]) -> str | None:
    """Return why every model has the same metric on these labels; None where not every model has."""
    kind = KINDS[task.type]
    assert kind.labels is not None, "only asked of tasks with labels"
    if task.metric == "matthews" and len(set(labels)) < 2:
        return "all validation rows that are judged are of one class"
    if task.metric in kind.entity_metrics:
        tagged = {tag for tags in cast("Sequence[tuple[int, ...]]", labels) for tag in tags}
        return "no validation row has an entity: all words are O" if {names[tag] for tag in tagged} <= {"O"} else None
    if task.metric != "f1":
        return None
    if kind.labels.classes == "one" and len(names) == 2 and 1 not in labels:
        return f"no validation row is of class {names[1][:64]!r}, which f1 counts"
    if kind.labels.may_be_hot and not any(cast("Sequence[tuple[int, ...]]", labels)):
        return "no validation row has a class"
    return None
