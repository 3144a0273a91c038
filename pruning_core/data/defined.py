"""Whether a metric says anything on the labels of a validation split. Torch-free.

A rank correlation of scores that are all alike is no number; F1 without a row of the counted class is 0 for every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pruning_core.data.faults import shown
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS


def check_defined(task: TaskSpec, labels: Sequence[Label], names: Sequence[str]) -> None:
    """Refuse validation labels on which the metric of the task is undefined, or the same for every model.

    Args:
        task: Names the metric.
        labels: Labels of the rows that are judged, placed by `pruning_core.data.labels.placed`.
        names: Names of the model's classes; empty for tasks without classes.

    Raises:
        DatasetInvalid: The metric says nothing on these labels.
    """
    kind = KINDS[task.type].labels
    if kind is None or not labels:
        return
    fault: str | None = None
    if task.metric in ("spearman", "matthews") and len(set(labels)) < 2:
        what = "scores" if kind.classes == "none" else "labels"
        fault = (
            f"the {len(labels)} validation rows that are judged have one and the same label, and {task.metric} is a "
            f"correlation with {what} that differ"
        )
    elif task.metric == "f1" and kind.classes == "one" and len(names) == 2 and 1 not in labels:
        fault = f"no validation row is of class {names[1]!r}, whose F1 the metric f1 is: it would be 0 for every model"
    elif task.metric == "f1" and kind.may_be_hot and not any(cast("Sequence[tuple[int, ...]]", labels)):
        fault = "no validation row has a class, so that f1 would be 0 for every model"
    elif task.metric in KINDS[task.type].entity_metrics:
        tagged = {tag for tags in cast("Sequence[tuple[int, ...]]", labels) for tag in tags}
        if all(names[tag] == "O" for tag in tagged):
            fault = "no validation row has an entity (all words are O), so that f1 would be 0 for every model"
    if fault is not None:
        others = [name for name in KINDS[task.type].metrics if name != task.metric]
        instead = f", or choose metric {shown(others)}" if others else ""
        raise DatasetInvalid(f"{fault}; give validation rows whose labels differ{instead}", param="task.columns.label")
