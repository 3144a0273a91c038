"""Labels as data sets hold them, and as tasks need them: class indices, scores, tags of words, answers, texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from pruning_core.checks.task import UNLABELLED, check_head, check_label, check_name, label_is_wrong
from pruning_core.data.rows import Answers, Label
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

if TYPE_CHECKING:
    from pruning_core.data.rows import Rows


def parse_labels(task: TaskSpec, values: Sequence[Any]) -> list[Label | None]:
    """Give labels as the task's type has them; None for what is missing.

    Raises:
        DatasetInvalid: Some label is something else.
    """
    kind = KINDS[task.type].label
    assert kind is not None, "only asked of tasks with labels"
    found: list[Label | None] = []
    for value in values:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            found.append(None)
            continue
        if kind in ("class", "number"):
            label = _number(task, value)
        elif kind in ("classes", "tags"):
            label = _several(value)
        elif kind == "answers":
            label = _answers(value)
        else:
            label = value if isinstance(value, str) else None
        if label is None:
            raise label_is_wrong(task, f"column {task.columns.label!r} holds {_words(value)}")
        found.append(None if label == UNLABELLED and kind == "class" else label)
    return found


def _words(value: object) -> str:
    return "text" if isinstance(value, str) else "lists or objects" if isinstance(value, list | Mapping) else "numbers"


def _number(task: TaskSpec, value: object) -> float | str | None:
    if isinstance(value, str) and task.type == "image-classification":
        return value
    return float(value) if isinstance(value, int | float | Decimal) else None


def _several(value: object) -> tuple[int | str, ...] | None:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, int | str) and not isinstance(item, bool) for item in items):
        return None
    return tuple(cast("list[int | str]", items))


def _answers(value: object) -> Answers | None:
    """Read SQuAD's form, or its Parquet twin: a list of objects with text and answer_start each."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        objects = [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping)]
        if len(objects) < len(items):
            return None
        texts, starts = [item.get("text") for item in objects], [item.get("answer_start") for item in objects]
    elif isinstance(value, Mapping):
        given = cast("Mapping[str, object]", value)
        texts, starts = given.get("text"), given.get("answer_start")
    else:
        return None
    if not isinstance(texts, list) or not isinstance(starts, list):
        return None
    given_texts, given_starts = cast("list[object]", texts), cast("list[object]", starts)
    if len(given_texts) != len(given_starts):
        return None
    words = tuple(text for text in given_texts if isinstance(text, str))
    places = tuple(start for start in given_starts if isinstance(start, int))
    return Answers(words, places) if len(words) == len(given_texts) == len(places) else None


def with_classes(task: TaskSpec, rows: Rows, names: Sequence[str]) -> Rows:
    """Check labels against the classes of the model's head, and turn names of classes into their indices.

    Args:
        task: What the labels are for.
        rows: Rows with labels as they were read.
        names: The model's classes.

    Raises:
        DatasetInvalid: A class that the head does not have, tags that do not fit their words, answers of which none stands in
            its context, or a head that does not fit the task's type.
    """
    check_head(task, len(names), names)
    kind = KINDS[task.type].label
    if kind == "answers":
        _check_answers(rows)
    if rows.labels is None or kind not in ("class", "classes", "tags"):
        return replace(rows, names=tuple(names))
    index = {name: place for place, name in enumerate(names)}

    def place(item: float | str) -> int:
        if isinstance(item, str):
            check_name(item, names)
            return index[item]
        check_label(item, len(names))
        return int(item)

    if kind == "class":
        labels: list[Label] = [place(cast("float | str", label)) for label in rows.labels]
    else:
        labels = [tuple(place(item) for item in cast("tuple[int | str, ...]", label)) for label in rows.labels]
    for row, (words, label) in enumerate(zip(rows.texts, labels, strict=True)):
        if kind == "tags" and len(words) != len(cast("tuple[int, ...]", label)):
            raise DatasetInvalid(
                f"row {row} has {len(words)} words and {len(cast('tuple[int, ...]', label))} labels; every word needs one",
                param="task.columns.label",
            )
    return replace(rows, labels=tuple(labels), names=tuple(names))


def misplaced(rows: Rows) -> list[int]:
    """List the rows with answers of which none stands in the context where it is said to begin."""
    found: list[int] = []
    for row, ((_, context), label) in enumerate(zip(rows.texts, rows.labels or (), strict=False)):
        answers = cast("Answers", label)
        right = [
            context.startswith(text, start) for text, start in zip(answers.texts, answers.starts, strict=True) if start >= 0
        ]
        if answers.texts and not any(right):
            found.append(row)
    return found


def _check_answers(rows: Rows) -> None:
    missed = misplaced(rows)
    answered = [label for label in rows.labels or () if cast("Answers", label).texts]
    if missed and len(missed) == len(answered):
        answers, (_, context) = cast("Answers", answered[0]), rows.texts[missed[0]]
        start = answers.starts[0]
        there = context[max(0, start) : start + len(answers.texts[0])]
        raise DatasetInvalid(
            f"no answer of {len(answered)} stands in its context where answer_start says: row {missed[0]} has "
            f"{answers.texts[0][:64]!r}, and {there[:64]!r} stands at {start}. It counts characters of the context, from 0",
            param="task.columns.label",
        )
