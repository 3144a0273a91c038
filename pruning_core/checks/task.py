"""Checks that a model and a data set fit the task, as far as configurations and columns show it. Torch-free.

The front end checks at submit. The job checks again, with the same messages, what only the job can see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never, cast

from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.columns import Column, not_utf8
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import KINDS, misfit

UNLABELLED = -1  # class index of unlabelled rows in GLUE on the Hub

# Families whose first position follows the id of the padding token: the rows of the table up to that id are never used.
_OFFSET_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})
# Families for which `n_positions` is the size of the position table.
_N_POSITIONS_FAMILIES = frozenset({"gpt2", "openai-gpt", "ctrl"})
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


def check_label(label: float, classes: int) -> None:
    """Check a class index against the number of classes.

    Raises:
        DatasetInvalid: The label is not a whole number from 0 to ``classes - 1``.
    """
    if not math.isfinite(label) or label != int(label) or not 0 <= label < classes:
        raise DatasetInvalid(
            f"label {label:g} is no class of the model, which has {classes}: labels must be 0 to {classes - 1}",
            param="task.columns.label",
        )


def check_name(name: str, names: Sequence[str]) -> None:
    """Check the name of a class against the model's classes.

    Raises:
        DatasetInvalid: The model has no class of that name.
    """
    if name not in names:
        have = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise DatasetInvalid(f"label {name[:64]!r} is no class of the model, which has {have}", param="task.columns.label")


def label_is_wrong(task: TaskSpec, what: str) -> DatasetInvalid:
    """Make the error for a label column that does not hold what the task needs.

    Args:
        task: The task; its type decides which labels are valid.
        what: Start of the message, which says what was found.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    return DatasetInvalid(f"{what}; a {task.type} task needs {kind.words} there", param="task.columns.label")


def check_kinds(task: TaskSpec, columns: Mapping[str, Column], split: str, head: Head | None) -> None:
    """Check the contents of a split's columns, as far as the file's first rows or its footer show them.

    Args:
        task: The task that reads the columns.
        columns: Columns by name.
        split: Name of the split.
        head: The model's head; None where it is not known yet.

    Raises:
        DatasetInvalid: A column does not hold what the task reads.
    """
    kind = KINDS[task.type]
    for name in task.columns.text:
        found, wanted = columns[name].kind, "nested" if kind.reads == "words" else "text"
        if found == "undecodable":
            raise not_utf8(f"column {name!r} of the {split} split", "task.columns.text")
        if found not in ("unknown", wanted):
            needs = "lists of words are" if wanted == "nested" else "text is"
            raise DatasetInvalid(
                f"column {name!r} of the {split} split holds {_words(found)}, and {needs} needed there",
                param="task.columns.text",
            )
    if task.columns.label is None or kind.labels is None:
        return
    label = columns[task.columns.label]
    if label.kind == "undecodable":
        raise not_utf8(f"column {task.columns.label!r} of the {split} split", "task.columns.label")
    if label.kind not in ("unknown", *kind.labels.columns):
        raise label_is_wrong(task, f"column {task.columns.label!r} holds {_words(label.kind)}")
    if kind.labels.classes != "none" and head is not None:
        # A smallest label of -1 marks unlabelled rows, and hides the smallest label of the others.
        for value in (label.largest, label.smallest):
            if value is not None and (value != UNLABELLED or kind.labels.classes != "one"):
                check_label(value, head.classes)
        for name in sorted(label.names) if head.names else ():
            check_name(name, head.names)


def _words(kind: str) -> str:
    return {"number": "numbers", "nested": "lists or objects"}.get(kind, kind)


def check_model_class(task: TaskSpec, config: Mapping[str, Any]) -> None:
    """Check the model class that a checkpoint's config names against the task.

    Raises:
        ModelUnreadable: The class has another task's head.
    """
    named = config.get("architectures")
    first = cast("list[object]", named)[0] if isinstance(named, list) and named else None
    if not isinstance(first, str):
        return
    other = misfit(task.type, first)
    if other is not None:
        fitting = [name for name, kind in KINDS.items() if kind.loads_as == other]
        raise ModelUnreadable(
            f"the model is a {first[:64]}, whose head does not fit a {task.type} task; give a model fine-tuned for it, or "
            f"choose task.type {' or '.join(fitting)}",
            param="task.type",
        )


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Return the longest sequence that the model's position table allows; None where it has no such table."""
    family = config.get("model_type")
    positions = config.get("max_position_embeddings", config.get("n_positions") if family in _N_POSITIONS_FAMILIES else None)
    if not isinstance(positions, int) or positions < 1:
        return None
    padding = config.get("pad_token_id")
    return positions - (padding if isinstance(padding, int) else 1) - 1 if family in _OFFSET_FAMILIES else positions


def check_lengths(spec: PruneSpec, positions: int | None) -> None:
    """Check lengths against the number of the model's positions. A default length that is too long is silently cut later.

    Raises:
        ModelUnreadable: A length other than the default exceeds the number of positions.
    """
    for section, field, length in (
        ("calibration", "max_length", spec.calibration.max_length),
        ("evaluation", "max_length", spec.evaluation.max_length),
        ("latency", "length", spec.latency.length),
    ):
        default = type(getattr(spec, section)).model_fields[field].default
        if positions is not None and length > positions and length != default:
            raise ModelUnreadable(
                f"{section}.{field} {length} is more than the {positions} positions of the model", param=f"{section}.{field}"
            )
