"""Further evaluation sets: the task of each, its rows, and its errors in words of its own fields. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pruning_core.data.columns import resolved
from pruning_core.data.images import images_of
from pruning_core.data.opening import open_split
from pruning_core.errors import PruningError
from pruning_core.files.paths import is_local
from pruning_core.spec.evaluation import FIELDS_OF_SETS, AlsoSpec
from pruning_core.spec.prune import Columns, TaskSpec

_FIELD = re.compile(r"\btask\.(\w+)", re.ASCII)
_OF_TRAINING = ", or hold a share of its training rows out by task.validation_share"  # a set has no training rows


@contextmanager
def in_words_of(place: int, own: AlsoSpec) -> Generator[None]:
    """Turn errors about the task of a further set into such about the set.

    Raises:
        PruningError: Of the same kind, with the set's name and fields.
    """
    try:
        yield
    except PruningError as error:
        whole, _, field = (error.param or "").partition(".")
        named = f"{_start(place)}.{_of_set(field)}" if whole == "task" and field else _start(place)
        raise type(error)(said_of_set(place, own, error.message), param=named) from error


def said_of_set(place: int, own: AlsoSpec, message: str) -> str:
    """Return a sentence about the task of a further set as one about the set."""
    fields = _FIELD.sub(lambda found: f"{_start(place)}.{_of_set(found[1])}", message.replace(_OF_TRAINING, ""))
    return f"evaluation set {own.name}: {fields}"


def set_task(task: TaskSpec, own: AlsoSpec) -> tuple[TaskSpec, tuple[str, ...]]:
    """Return the task of a further set with all its columns named, and what was guessed, in sentences.

    The columns of the job's task are meant where the set has them all; elsewhere they are guessed.

    Raises:
        DatasetInvalid: The split cannot be read, or its columns cannot be guessed.
    """
    asked = task_of_set(task, own)
    if own.columns is None and asked.columns.inputs and not _has_columns(asked):
        asked = asked.but(columns=Columns())
    return resolved(asked)


def task_of_set(task: TaskSpec, own: AlsoSpec) -> TaskSpec:
    """Return the task of a further set. Of one file, all rows are judged."""
    asked = task.of_set(own)
    if own.data is None or own.split is not None or not is_local(own.data):
        return asked
    path = Path(own.data).expanduser()
    return asked.but(train_split=path.name, validation_split=path.name) if path.is_file() else asked


def _has_columns(task: TaskSpec) -> bool:
    if images_of(task, task.validation_split) is not None:
        return True
    present = open_split(task, "validation").columns
    named = [*task.columns.inputs, *([] if task.columns.label is None else [task.columns.label])]
    return all(column in present for column in named)


def _start(place: int) -> str:
    return f"evaluation.also.{place}"


def _of_set(field: str) -> str:
    first, _, rest = field.partition(".")
    return ".".join([FIELDS_OF_SETS.get(first, first), *([rest] if rest else [])])
