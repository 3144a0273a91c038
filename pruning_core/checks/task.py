"""Whether a model and a data set fit the task, as far as configurations and columns tell. Torch-free.

The front end says it at submit, and the job in the same words where only the job sees it.
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

UNLABELLED = -1  # what the Hub's GLUE writes where a class index is not known

# Families that count positions from behind their padding token: so many rows of their table are never used.
_OFFSET_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})
# Families for which `n_positions` is the size of a table.
_N_POSITIONS_FAMILIES = frozenset({"gpt2", "openai-gpt", "ctrl"})
# Marks of tags that make entities; see `tasks.tokens`.
_MARKS = frozenset({"B-", "I-", "E-", "S-", "L-", "U-"})


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a model, as its configuration tells: number of outputs, and the names of its classes where it has some."""

    classes: int
    names: tuple[str, ...]


def check_head(task: TaskSpec, classes: int, names: Sequence[str] = ()) -> None:
    """Check the outputs of a model's head against the type and the metric of the task.

    Args:
        task: Type and metric.
        classes: Number of outputs.
        names: Of the classes, where they are known.

    Raises:
        DatasetInvalid: They do not fit.
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
    """Tell whether names of classes mark entities: O, and others that begin with a mark such as B-."""
    others = [name for name in names if name != "O"]
    return bool(others) and all(name[:2] in _MARKS for name in others)


def check_label(label: float, classes: int) -> None:
    """Check a class index against the number of classes.

    Raises:
        DatasetInvalid: It is none.
    """
    if not math.isfinite(label) or label != int(label) or not 0 <= label < classes:
        raise DatasetInvalid(
            f"label {label:g} is no class of the model, which has {classes}: labels must be 0 to {classes - 1}",
            param="task.columns.label",
        )


def check_name(name: str, names: Sequence[str]) -> None:
    """Check a name of a class against the model's.

    Raises:
        DatasetInvalid: The model has none of that name.
    """
    if name not in names:
        have = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise DatasetInvalid(f"label {name[:64]!r} is no class of the model, which has {have}", param="task.columns.label")


def label_is_wrong(task: TaskSpec, what: str) -> DatasetInvalid:
    """Make the error of a label column that holds something else than the task needs.

    Args:
        task: Its type decides what would be right.
        what: What was found, as the start of a sentence.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    return DatasetInvalid(f"{what}; a {task.type} task needs {kind.words} there", param="task.columns.label")


def check_kinds(task: TaskSpec, columns: Mapping[str, Column], split: str, head: Head | None) -> None:
    """Check what the columns of a split hold, as far as its head or footer tells.

    Args:
        task: What the columns are for.
        columns: By name.
        split: Which rows they are of.
        head: The model's; None where it is not known yet.

    Raises:
        DatasetInvalid: Something else than the task reads.
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
        # A smallest label of -1 marks rows without one, and hides what the smallest of the others is.
        for value in (label.largest, label.smallest):
            if value is not None and (value != UNLABELLED or kind.labels.classes != "one"):
                check_label(value, head.classes)
        for name in sorted(label.names) if head.names else ():
            check_name(name, head.names)


def _words(kind: str) -> str:
    return {"number": "numbers", "nested": "lists or objects"}.get(kind, kind)


def check_model_class(task: TaskSpec, config: Mapping[str, Any]) -> None:
    """Check the class that a checkpoint names for itself against the task.

    Raises:
        ModelUnreadable: It has another task's head.
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
    """Give the longest sequence that a model's table of positions allows; None where there is no such table."""
    family = config.get("model_type")
    positions = config.get("max_position_embeddings", config.get("n_positions") if family in _N_POSITIONS_FAMILIES else None)
    if not isinstance(positions, int) or positions < 1:
        return None
    padding = config.get("pad_token_id")
    return positions - (padding if isinstance(padding, int) else 1) - 1 if family in _OFFSET_FAMILIES else positions


def check_lengths(spec: PruneSpec, positions: int | None) -> None:
    """Refuse lengths beyond a model's positions. The default length is cut to them without a word, as texts are.

    Raises:
        ModelUnreadable: A length that was chosen is beyond them.
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
