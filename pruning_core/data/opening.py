"""Opening of a split: where a data set's files lie, and which of them hold it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pruning_core.data.table import Role, Table
from pruning_core.errors import DatasetInvalid
from pruning_core.files.columns import not_utf8
from pruning_core.files.hub import dataset_folder
from pruning_core.files.paths import is_local, split_file
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.prune import TaskSpec


def open_split(task: TaskSpec, role: Role) -> Table:
    """Open the split of the task's data set that has a role.

    Raises:
        DatasetInvalid: The split is missing or unreadable.
    """
    split = task.train_split if role == "train" else task.validation_split
    return _local(task, split) if is_local(task.dataset) else _of_hub(task, split)


class _ArrowTable(Table):
    """A table that Arrow holds in memory."""

    typed = True
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    notes = ()

    def __init__(self, name: str, table: Any, images: Sequence[str]) -> None:
        self.name = name
        self.columns = tuple(table.column_names)
        self._table = table
        self._images = images

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows."""
        yield from zip(*(self._values(name) for name in names), strict=True)

    def _values(self, name: str) -> list[Any]:
        """Return the values of a column. Arrow reads text in an encoding other than UTF-8 as bytes, or fails to decode it."""
        import pyarrow as pa

        column = self._table.column(name)
        try:
            values = column.to_pylist()
        except UnicodeDecodeError:
            raise not_utf8(f"column {name!r} of {self.name}", "task.columns") from None
        if pa.types.is_binary(column.type) and name not in self._images:
            raise not_utf8(f"column {name!r} of {self.name}", "task.columns")
        return values


def _images_of(task: TaskSpec) -> tuple[str, ...]:
    return () if task.columns.image is None else (task.columns.image,)


def _local(task: TaskSpec, split: str) -> Table:
    import pyarrow as pa

    path = split_file(Path(task.dataset).expanduser(), split)
    try:
        table = _read_table(path)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise_if_exhausted(error, f"{path.name} was read")
        reason = str(error).splitlines()[0][:200]
        raise DatasetInvalid(f"{path.name} cannot be read: {reason}", param="task.dataset") from error
    return _ArrowTable(f"the {split} split", table, _images_of(task))


def _read_table(path: Path) -> Any:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if path.suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    import pyarrow.json

    return pyarrow.json.read_json(path)


def _of_hub(task: TaskSpec, split: str) -> Table:
    import datasets

    folder = dataset_folder(task.dataset, task.config)
    try:
        # The folder, not the id: `datasets` would take a folder of the working directory for it.
        dataset = datasets.load_dataset(str(folder), task.config, split=split)
    except Exception as error:  # datasets passes on the errors of its network, parsers and cache
        raise_if_exhausted(error, "the data set was loaded")
        raise DatasetInvalid(
            f"data set {task.dataset!r} could not be loaded ({type(error).__name__}); without a network give a local folder",
            param="task.dataset",
        ) from error
    for image in _images_of(task):  # keep the stored bytes: the model's own processor decodes them
        if image in dataset.column_names:
            dataset = dataset.cast_column(image, datasets.Image(decode=False))
    return _ArrowTable(f"the {split} split", dataset.data.table, _images_of(task))
