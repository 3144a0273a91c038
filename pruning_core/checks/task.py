"""Checks that a model and a data set fit the task, as far as configurations and columns show it. Torch-free.

The front end checks at submit. The job checks again, with the same messages, what only the job can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pruning_core.data.faults import UNLABELLED, check_label, label_is_wrong
from pruning_core.data.head import Head
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.columns import Column
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import KINDS, misfit

# Families whose first position follows the id of the padding token: the rows of the table up to that id are never used.
_OFFSET_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})
# Families for which `n_positions` is the size of the position table.
_N_POSITIONS_FAMILIES = frozenset({"gpt2", "openai-gpt", "ctrl"})


def check_kinds(task: TaskSpec, columns: Mapping[str, Column], split: str, head: Head | None) -> None:
    """Check the contents of a split's columns, as far as the footer of a Parquet file shows them.

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
        if found not in ("unknown", wanted):
            needs = "lists of words are" if wanted == "nested" else "text is"
            raise DatasetInvalid(
                f"column {name!r} of the {split} split holds {_words(found)}, and {needs} needed there",
                param="task.columns.text",
            )
    if task.columns.label is None or kind.labels is None:
        return
    label = columns[task.columns.label]
    if label.kind not in ("unknown", *kind.labels.columns):
        raise label_is_wrong(task, f"column {task.columns.label!r} holds {_words(label.kind)}")
    if kind.labels.classes != "none" and head is not None:
        # A smallest label of -1 marks unlabelled rows, and hides the smallest label of the others.
        for value in (label.largest, label.smallest):
            if value is not None and (value != UNLABELLED or kind.labels.classes != "one"):
                check_label(value, head.classes)


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


# What transformers computes for a `problem_type`, and the type of task that computes the same.
_PROBLEMS: Mapping[str, str] = {
    "single_label_classification": "text-classification",
    "multi_label_classification": "multi-label-classification",
    "regression": "regression",
}


def check_problem_type(task: TaskSpec, config: Mapping[str, Any]) -> None:
    """Check the ``problem_type`` of a classifier's config against the task.

    By it transformers chooses the loss, and its pipelines whether the classes exclude each other: a task of the other kind
    would judge another function than the one that users of the model call.

    Raises:
        ModelUnreadable: They do not fit.
    """
    problem = config.get("problem_type")
    other = _PROBLEMS.get(problem) if isinstance(problem, str) else None
    if other is None or other == task.type or task.type not in _PROBLEMS.values():
        return
    raise ModelUnreadable(
        f"the model's config says problem_type {problem}, by which transformers computes {other}, not {task.type}; choose "
        f"task.type {other}, or correct problem_type in config.json",
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
