"""Reading rows of a data set: the inputs and labels of a table, folders of images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never, cast

from pruning_core.data.chats import encode_chat, is_chat
from pruning_core.data.columns import resolved
from pruning_core.data.faults import check_columns
from pruning_core.data.images import encode_picture, images_of, read_image_folder
from pruning_core.data.labels import is_missing, parse_labels
from pruning_core.data.opening import open_split
from pruning_core.data.rows import Form, Rows, Value
from pruning_core.data.slices import check_slices, no_columns, value_of
from pruning_core.data.table import Role, Table
from pruning_core.data.values import NEEDS, kind_of
from pruning_core.errors import DatasetInvalid
from pruning_core.files.paths import is_local
from pruning_core.spec.labels import Label, list_of
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

_LOOK_AT_CLOCK = 64  # rows
_PART = 64  # characters' worth of memory that a text takes beside its own


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a split is read at most.

    Attributes:
        seconds: Time; at least one row is read.
        characters: Size of the inputs that are kept.
    """

    seconds: float
    characters: int


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a split.

    Attributes:
        rows: The rows.
        looked_at: Number of rows of the split that were read, those that are left out included.
        whole: Whether that was all of it.
    """

    rows: Rows
    looked_at: int
    whole: bool


def read_rows(task: TaskSpec, role: Role, slices: Sequence[str] = ()) -> Rows:
    """Read the split of the task's data set that has a role. Columns that the task does not name are guessed.

    Args:
        task: The task.
        role: Which of its splits.
        slices: Further columns, by which the rows are sliced.

    Raises:
        DatasetInvalid: The split is missing, unreadable or empty, lacks a column that the task reads, or has a label of the
            wrong type.
    """
    task, notes = resolved(task)
    rows = read_some(task, role, slices=slices).rows
    return replace(rows, notes=(*notes, *rows.notes))


def read_some(task: TaskSpec, role: Role, budget: Budget | None = None, *, slices: Sequence[str] = ()) -> Read:
    """Read a split as far as a budget goes, by columns that the task names. Raises as `read_rows`."""
    split = task.train_split if role == "train" else task.validation_split
    folder = folder_of(task)
    if folder is not None and images_of(task, split) is not None:
        if slices:
            raise no_columns()
        texts, named = read_image_folder(folder, split)
        return Read(Rows(texts, named), len(texts), whole=True)
    table = open_split(task, role, slices)
    check_columns(task, list(table.columns), split)
    check_slices(slices, table.columns, split)
    return read_table(task, table, split, budget, slices)


def folder_of(task: TaskSpec) -> Path | None:
    """Return the folder of a local data set; None for one of the Hub."""
    return Path(task.dataset).expanduser() if is_local(task.dataset) else None


def has_labels(task: TaskSpec) -> bool:
    """Return whether labels are read."""
    return task.columns.label is not None and KINDS[task.type].labels is not None


def read_table(task: TaskSpec, table: Table, split: str, budget: Budget | None = None, slices: Sequence[str] = ()) -> Read:
    """Read the rows of a table as far as a budget goes.

    Args:
        task: Names the columns, all of which the table has.
        table: The split, opened.
        split: Name of the split, for messages.
        budget: How much is read; None: all of it.
        slices: Columns by which the rows are sliced, all of which the table has.

    Raises:
        DatasetInvalid: There is no usable row, or a label is of the wrong type.
    """
    inputs = task.columns.inputs
    wanted = [*inputs, *([cast("str", task.columns.label)] if has_labels(task) else [])]
    taken = _Taken(task, folder_of(task))
    values: list[Any] = []
    sliced: list[list[Value]] = [[] for _ in slices]
    whole = True
    names = [*wanted, *(name for name in slices if name not in wanted)]  # one may be both
    rows = table.rows(names)
    for row in rows if budget is None else _within(rows, budget, taken):
        if row is None:
            whole = False
            break
        taken.take_(row[: len(inputs)])
        values.append(row[len(wanted) - 1])
        for name, column in zip(slices, sliced, strict=True):
            column.append(value_of(row[names.index(name)]))
    labels = parse_labels(task, values) if has_labels(task) else None
    keep = [i for i, text in enumerate(taken.texts) if text is not None and (labels is None or labels[i] is not None)]
    if not keep and whole:
        raise taken.fault(split)
    return Read(
        Rows(
            texts=tuple(text for i in keep if (text := taken.texts[i]) is not None),
            labels=None if labels is None else tuple(label for i in keep if (label := labels[i]) is not None),
            left_out=len(taken.texts) - len(keep),
            classes=table.classes.get(cast("str", task.columns.label), ()) if has_labels(task) else (),
            notes=(*table.notes, *taken.notes(split)),
            form=taken.form or "plain",
            slices={name: tuple(column[i] for i in keep) for name, column in zip(slices, sliced, strict=True)},
        ),
        looked_at=len(taken.texts),
        whole=whole,
    )


def read_labels(task: TaskSpec, table: Table, seconds: float) -> tuple[list[Label], int, bool]:
    """Read the label column alone, as far as the time goes.

    Returns:
        The labels that are there, the number of rows that were read, and whether that was all.

    Raises:
        DatasetInvalid: A label is of the wrong type.
    """
    values: list[Any] = []
    until, whole = time.monotonic() + seconds, True
    for (value,) in table.rows([cast("str", task.columns.label)]):
        if len(values) % _LOOK_AT_CLOCK == 0 and time.monotonic() > until and values:
            whole = False
            break
        values.append(value)
    return [label for label in parse_labels(task, values) if label is not None], len(values), whole


def _within(rows: Iterable[tuple[Any, ...]], budget: Budget, taken: _Taken) -> Iterator[tuple[Any, ...] | None]:
    """Yield rows; None where the budget has run out."""
    until = time.monotonic() + budget.seconds
    for at, row in enumerate(rows):
        if at and (taken.characters > budget.characters or (at % _LOOK_AT_CLOCK == 0 and time.monotonic() > until)):
            yield None
            return
        yield row


@dataclass(slots=True)
class _Taken:
    """The inputs of the rows so far; None where a row's inputs are missing, blank or of another kind."""

    task: TaskSpec
    folder: Path | None
    texts: list[tuple[str, ...] | None] = field(default_factory=list[tuple[str, ...] | None])
    characters: int = 0
    form: Form | None = None
    odd: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def take_(self, values: Sequence[Any]) -> None:
        """Add a row by the values of its input columns."""
        found = self._inputs(values)
        self.characters += 0 if found is None else sum(map(len, found)) + _PART * len(found)
        self.texts.append(found)

    def _inputs(self, values: Sequence[Any]) -> tuple[str, ...] | None:
        kind = KINDS[self.task.type]
        match kind.reads:
            case "image":
                return encode_picture(values[0], self.folder)
            case "words":
                return self._texts(tuple(list_of(values[0]) or ()), values)
            case "text":
                if kind.takes_chats and self.form != "plain" and is_chat(values[0]):
                    self.form = "chat"
                    chat = encode_chat(values[0], self.task.columns.inputs[0])
                    return None if chat is None else (chat,)
                return self._texts(tuple(values), values)
            case _:
                assert_never(kind.reads)

    def _texts(self, parts: tuple[object, ...], values: Sequence[Any]) -> tuple[str, ...] | None:
        """Return the texts of a row; None, and a note, where they are none or blank. The first row decides about chats."""
        if not parts or self.form == "chat" or not all(isinstance(part, str) for part in parts):
            for column, value in zip(self.task.columns.inputs, values, strict=True):
                if KINDS[self.task.type].reads == "words" or self.form == "chat" or not isinstance(value, str):
                    self._note_odd_(column, value)
            return None
        texts = cast("tuple[str, ...]", parts)
        if not any(map(str.strip, texts)):
            return None
        self.form = "plain"
        return texts if self.task.prefix is None else tuple(self.task.prefix + text for text in texts)

    def _note_odd_(self, column: str, value: object) -> None:
        if not is_missing(value) and value != []:
            self.odd[column, kind_of(value)] += 1

    def fault(self, split: str) -> DatasetInvalid:
        """Return the error for a split without a usable row: by what its column holds instead, where that is why."""
        task = self.task
        needed = NEEDS[KINDS[task.type].reads]
        for (column, kind), count in self.odd.most_common(1):
            if count == len(self.texts):
                return DatasetInvalid(
                    f"column {column[:64]!r} of the {split} split holds {kind}, and {needed.words} {needed.verb} needed there",
                    param=f"task.columns.{'image' if task.columns.image else 'text'}",
                )
        labelled = f" and labels in {task.columns.label}" if has_labels(task) else ""
        return DatasetInvalid(
            f"the {split} split has no usable row; it needs {needed.words} in {', '.join(task.columns.inputs)}{labelled}",
            param="task.dataset",
        )

    def notes(self, split: str) -> list[str]:
        """Say which rows were left out because they hold something else."""
        return [
            f"{count} of {len(self.texts)} {split} rows hold {kind} in {column[:64]!r}, and were left out"
            for (column, kind), count in sorted(self.odd.items())
        ]
