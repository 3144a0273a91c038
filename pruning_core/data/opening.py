"""Opening of a split: one reader for checks and jobs, for local data and the Hub's. Torch-free.

Whatever this accepts, `pruning_core.data.read` reads, and the other way round: both ask the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pruning_core.data.features import classes_in
from pruning_core.data.formats.loaded import load_by_datasets
from pruning_core.data.formats.registry import open_file
from pruning_core.data.formats.source import Asked, FileTable, check_text
from pruning_core.data.shares import rows_of
from pruning_core.data.splits import Found, NoSuchSplit, find_split, info_beside
from pruning_core.data.table import Role, Table
from pruning_core.errors import DatasetInvalid
from pruning_core.files.hub import dataset_folder
from pruning_core.files.paths import is_local
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS


def open_split(task: TaskSpec, role: Role, more: Sequence[str] = ()) -> Table:
    """Open the split of the task's data set that has a role.

    Args:
        task: The task.
        role: Which of its splits.
        more: Columns that will be read beside those of the task.

    Raises:
        DatasetInvalid: The split is missing or unreadable.
        ReaderMissing: It is in a form that needs pyarrow, which is not installed.
    """
    if is_local(task.dataset):
        return _opened(find_split(Path(task.dataset).expanduser(), task, role), task, role, more)
    folder = dataset_folder(task.dataset, task.config, revision=task.revision)
    try:
        found = find_split(folder, task.but(revision=None), role, described=True)
    except NoSuchSplit as missing:  # a layout that only the Hub's own library knows
        split = task.train_split if role == "train" else task.validation_split
        asked = _asked(task, more)
        loaded = load_by_datasets(folder, task, split, asked, missing)
        return _Split(loaded, [loaded.path], asked, role, Found(split, ()))
    return _opened(found, task, role, more)


def _opened(found: Found, task: TaskSpec, role: Role, more: Sequence[str]) -> Table:
    name, asked = f"the {role if found.share is not None else found.name} split", _asked(task, more)
    return _Split(open_file(found.files[0], name, asked), found.files, asked, role, found)


def _asked(task: TaskSpec, more: Sequence[str]) -> Asked:
    columns = task.columns
    names = (*columns.inputs, *([columns.label] if columns.label else []), *more)
    pictures = () if columns.image is None else (columns.image,)
    return Asked(names, pictures, KINDS[task.type].reads == "words")


class _Split(Table):
    """The files of a split, one after the other. Those after the first are opened when it is their turn."""

    def __init__(self, first: FileTable, files: Sequence[Path], asked: Asked, role: Role, found: Found) -> None:
        self._first = first
        self._files = files
        self._role: Role = role
        self._share = found.share
        self._asked = asked
        self.name = first.name
        self.columns = first.columns
        self.classes: Mapping[str, tuple[str, ...]] = {**classes_in(info_beside(found)), **first.classes}
        self.typed = first.typed
        self.notes = (*found.notes, *first.notes)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows.

        Raises:
            DatasetInvalid: A file is damaged or lacks a column, a column's name occurs twice, or text is not UTF-8.
        """
        for name in names:
            if self.columns.count(name) > 1:
                raise DatasetInvalid(
                    f"{self._first.path.name} has {self.columns.count(name)} columns named {name!r}; name each its own way",
                    param="task.columns",
                )
        rows = self._all(names)
        return rows if self._share is None else rows_of(rows, self._share, self._role)

    def _all(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for place, path in enumerate(self._files):
            table = open_file(path, self.name, self._asked) if place else self._first
            lacking = [name for name in names if name not in table.columns]
            if lacking and not table.may_lack:
                raise DatasetInvalid(
                    f"{path.name} has no column {lacking[0]!r}, which {self._first.path.name} has; all files of a split need "
                    "the same columns",
                    param="task.dataset",
                )
            for row in table.rows(names):
                for name, value in zip(names, row, strict=True):
                    check_text(value, name, self.name)
                yield row
