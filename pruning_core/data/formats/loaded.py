"""Data sets of the Hub in a layout that only `datasets` knows. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pruning_core.data.formats.arrow import ArrowTable
from pruning_core.data.formats.source import Asked
from pruning_core.errors import DatasetInvalid
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.prune import TaskSpec


def load_by_datasets(folder: Path, task: TaskSpec, split: str, asked: Asked, missing: DatasetInvalid) -> ArrowTable:
    """Load a split of a folder by `datasets`.

    Args:
        folder: The folder that the data set was fetched to.
        task: The task, which names the configuration.
        split: Name of the split.
        asked: What will be read.
        missing: What to say where `datasets` does not find the split either.

    Raises:
        DatasetInvalid: It has no such split, or cannot be loaded.
        OutOfMemory: Memory ran out.
        StorageFull: The disk of the cache has no room for it.
    """
    import datasets

    try:
        # The folder, not the id: `datasets` would take a folder of the working directory for it.
        dataset = datasets.load_dataset(str(folder), task.config, split=split)
    except Exception as error:  # datasets passes on the errors of its network, parsers and cache
        raise_if_exhausted(error, "the data set was loaded")
        raise missing from error
    for image in asked.pictures:  # keep the stored bytes: the model's own processor decodes them
        if image in dataset.column_names:
            dataset = dataset.cast_column(image, datasets.Image(decode=False))
    return _Loaded(folder, f"the {split} split", dataset.data.table, asked)


class _Loaded(ArrowTable):
    """A table of Arrow that `datasets` maps into memory."""

    def __init__(self, path: Path, name: str, table: Any, asked: Asked) -> None:
        self.path = path
        self.name = name
        self._asked = asked
        self._table = table
        self._describe(table.schema)

    def _batches(self, places: Sequence[int]) -> Iterator[Any]:
        yield from self._table.select([self.columns[place] for place in places]).to_batches(max_chunksize=1024)
