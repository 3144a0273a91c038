"""Labels of rows: parsed by the task's kind of label, and turned into class indices of the model's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never, cast

from pruning_core.data.classes import Item, are_on, form_of, meaning_of
from pruning_core.data.faults import UNLABELLED, label_is_wrong, shown
from pruning_core.data.head import check_head
from pruning_core.data.values import kind_of
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.labels import Label, number_of
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

if TYPE_CHECKING:
    from pruning_core.data.rows import Rows

# How programs write a missing value into a cell of a column of numbers, in lower case; pandas, Arrow and spreadsheets agree.
_MISSING = frozenset(
    {"#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan", "none", "null"}
)


def parse_labels(task: TaskSpec, values: Sequence[Any]) -> list[Label | None]:
    """Parse labels by the task's kind of label; None for a missing label.

    Raises:
        DatasetInvalid: A value is not a label of this kind.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    absent = _spelled_out(values) if "number" in kind.columns else frozenset[str]()
    found: list[Label | None] = []
    for value in values:
        if is_missing(value) or (isinstance(value, str) and value.strip().lower() in absent):
            found.append(None)
            continue
        label = kind.parse(value)
        if label is None:
            raise label_is_wrong(task, f"column {task.columns.label!r} holds {_words(value)}")
        unlabelled = kind.classes == "one" and (number_of(label) if isinstance(label, str) else label) == UNLABELLED
        found.append(None if unlabelled else label)
    return found


def is_missing(value: object) -> bool:
    """Return whether a value is no value: null, NaN, or a text without a letter."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # noqa: PLR0124 - NaN of any type


def _spelled_out(values: Sequence[object]) -> frozenset[str]:
    """Return the spellings of missing values, if all other texts of a column are numbers: else one may be a class's name."""
    texts = {value.strip().lower() for value in values if isinstance(value, str)} - {""}
    numbers = [text for text in texts if number_of(text) is not None]
    return _MISSING if numbers and texts <= _MISSING.union(numbers) else frozenset()


def _words(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return "lists or objects" if isinstance(value, list | Mapping) else kind_of(value)


def with_classes(task: TaskSpec, rows: Rows, names: Sequence[str]) -> Rows:
    """Place the labels of one split; see `placed`."""
    return placed(task, [rows], names)[0]


def placed(task: TaskSpec, splits: Sequence[Rows], names: Sequence[str]) -> list[Rows]:
    """Check labels against the classes of the model's head, and turn names of classes into indices.

    What labels mean is decided by those of all splits together. What was decided is in the notes of the first one.

    Args:
        task: The task that the labels are for.
        splits: Rows with parsed labels.
        names: Names of the model's classes.

    Raises:
        DatasetInvalid: A label names a class that the head does not have, the labels do not fit the inputs of their rows, or
            the head does not fit the task's type.
    """
    check_head(task, len(names), names)
    columns = [rows.labels for rows in splits if rows.labels is not None]
    kind = KINDS[task.type].labels
    if kind is None or len(columns) < len(splits):
        return [replace(rows, names=tuple(names)) for rows in splits]
    indices, notes = place_labels(task, columns, names, own_classes([rows.classes for rows in splits]))
    found = [replace(rows, labels=placed, names=tuple(names)) for rows, placed in zip(splits, indices, strict=True)]
    found[0] = replace(found[0], notes=(*found[0].notes, *notes))
    for rows in found:
        assert rows.labels is not None, "they were placed"
        fault = kind.fault(rows.texts, rows.labels)
        if fault is not None:
            raise DatasetInvalid(fault, param="task.columns.label")
    return found


def own_classes(splits: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names that the data gives to its classes: the same ones in all splits that have any.

    Raises:
        DatasetInvalid: The splits name their classes differently, so that an index would mean two things.
    """
    named = [names for names in splits if names]
    if any(names != named[0] for names in named):
        raise DatasetInvalid(
            f"the splits name their classes differently: {shown(named[0])}; and {shown(named[1])}. Write both with "
            "the same names",
            param="task.columns.label",
        )
    return named[0] if named else ()


def place_labels(
    task: TaskSpec, columns: Sequence[Sequence[Label]], names: Sequence[str], own: Sequence[str]
) -> tuple[list[tuple[Label, ...]], tuple[str, ...]]:
    """Turn labels into class indices; labels of a kind without classes stay as they are.

    Args:
        task: The task that the labels are for.
        columns: The labels of each split.
        names: Names of the model's classes.
        own: Names that the data gives to its indices; empty where it gives none.

    Returns:
        The labels of each split, and what was decided, in sentences.

    Raises:
        DatasetInvalid: A label is no class of the model.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    match kind.classes:
        case "none":
            return [tuple(column) for column in columns], ()
        case "one":
            single = cast("Sequence[Sequence[Item]]", columns)
            meaning = meaning_of((item for column in single for item in column), names, own)
            return [tuple(meaning.of(item) for item in column) for column in single], meaning.notes
        case "several":
            lists = cast("Sequence[Sequence[tuple[Item, ...]]]", columns)
            if kind.may_be_hot:
                form, notes = form_of((items for column in lists for items in column), len(names))
                if form == "hot":
                    return [tuple(map(are_on, column)) for column in lists], notes
            meaning = meaning_of((item for column in lists for items in column for item in items), names, own)
            return [tuple(tuple(map(meaning.of, items)) for items in column) for column in lists], meaning.notes
        case _:
            assert_never(kind.classes)
