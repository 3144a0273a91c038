"""A model's head, by which labels are read. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

# Prefixes of the tags of entities; `tasks.scoring.entity_f1` counts entities by them.
_MARKS = frozenset({"B-", "I-", "E-", "S-", "L-", "U-"})


@dataclass(frozen=True, slots=True)
class Head:
    """A model's head by its configuration: the number of its outputs, and the names of its classes where it names them."""

    classes: int
    names: tuple[str, ...]


def check_head(task: TaskSpec, classes: int, names: Sequence[str] = ()) -> None:
    """Check the outputs of a model's head against the type and the metric of the task.

    Args:
        task: Type and metric.
        classes: Number of outputs.
        names: Names of the classes, where they are known.

    Raises:
        DatasetInvalid: The head does not fit the type or the metric.
    """
    kind = KINDS[task.type]
    match kind.outputs:
        case "one":
            if classes != 1:
                raise DatasetInvalid(f"{task.type} needs a model with one output, this one has {classes}", param="task.type")
        case "several":
            if classes < 2:
                message = f"{task.type} needs a model with two outputs or more, this one has one"
                raise DatasetInvalid(message, param="task.type")
        case "any":
            pass
        case _:
            assert_never(kind.outputs)
    if task.metric in kind.entity_metrics and names and not are_entities(names):
        others = " or ".join(name for name in kind.metrics if name not in kind.entity_metrics)
        raise DatasetInvalid(
            f"metric {task.metric} counts entities, and needs a model whose classes are named O, B-PER, I-PER and the like; "
            f"this one's are {', '.join(names[:4])}. Choose metric {others}, or name the classes in the model's config.json "
            "(id2label)",
            param="task.metric",
        )


def are_entities(names: Sequence[str]) -> bool:
    """Return whether names of classes mark entities: besides O, all must begin with a prefix such as B-."""
    others = [name for name in names if name != "O"]
    return bool(others) and all(name[:2] in _MARKS for name in others)
