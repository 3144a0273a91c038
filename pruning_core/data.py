"""Rows of a data set: local Parquet, JSON Lines and CSV files, or a data set of the Hub."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pruning_core.errors import DatasetInvalid
from pruning_core.inputs import (
    UNLABELLED,
    check_columns,
    check_head,
    check_label,
    is_local,
    label_is_no_number,
    split_file,
)
from pruning_core.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: texts as one tuple a row (one or two strings), labels where the task names a column of them.

    A classification label is a class index, a regression label a float; feature-extraction reads none. Rows whose text or label
    is null are left out; so are the rows that the Hub's GLUE marks as unlabelled (label -1).
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...] | None

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)


def read_rows(task: TaskSpec, split: str) -> Rows:
    """Read a split of the task's data set.

    Raises:
        DatasetInvalid: Missing, unreadable or empty, without a column that the task reads, or with a label of the wrong
            type.
    """
    columns = _read_local(task, split) if is_local(task.dataset) else _read_hub(task, split)
    names = task.columns
    texts = list(zip(*(columns[name] for name in names.text), strict=True))
    labels = None if names.label is None or task.type == "feature-extraction" else _numbers(task, columns[names.label])
    keep = [i for i, text in enumerate(texts) if all(isinstance(part, str) for part in text)]
    if labels is not None:
        unlabelled = UNLABELLED if task.type == "text-classification" else None
        keep = [i for i in keep if labels[i] not in (None, unlabelled)]
    if not keep:
        raise DatasetInvalid(
            f"the {split} split has no usable row; it needs text in {', '.join(names.text)}", param="task.dataset"
        )
    return Rows(
        texts=tuple(texts[i] for i in keep),
        labels=None if labels is None else tuple(label for i in keep if (label := labels[i]) is not None),
    )


def _numbers(task: TaskSpec, values: list[Any]) -> list[float | None]:
    """Give labels as numbers. What is missing is None, and so is NaN, by which some tools write that."""
    numbers: list[float | None] = []
    for value in values:
        if value is not None and not isinstance(value, int | float | Decimal):
            raise label_is_no_number(task)
        numbers.append(None if value is None or math.isnan(value) else float(value))
    return numbers


def check_labels(task: TaskSpec, rows: Rows, *, classes: int) -> None:
    """Check labels against the number of outputs of the model's head.

    Raises:
        DatasetInvalid: A class index that the head does not have, or a head that does not fit the task's type.
    """
    check_head(task, classes)
    if task.type == "text-classification":
        for label in rows.labels or ():
            check_label(label, classes)


def _read_local(task: TaskSpec, split: str) -> dict[str, list[Any]]:
    import pyarrow as pa

    path = split_file(Path(task.dataset).expanduser(), split)
    try:
        table = _read_table(path)
    except MemoryError:  # which Arrow's own is too; the file may be fine
        raise
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DatasetInvalid(f"{path.name} cannot be read: {reason}", param="task.dataset") from error
    check_columns(task, table.column_names, split)
    return {name: table.column(name).to_pylist() for name in _wanted(task)}


def _read_table(path: Path) -> Any:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if path.suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    import pyarrow.json

    return pyarrow.json.read_json(path)


def _read_hub(task: TaskSpec, split: str) -> dict[str, list[Any]]:
    import datasets

    try:
        dataset = datasets.load_dataset(task.dataset, task.config, split=split)
    except Exception as error:  # the library raises whatever its network, parsers and cache raise
        raise DatasetInvalid(
            f"data set {task.dataset!r} could not be loaded ({type(error).__name__}); without a network give a local folder",
            param="task.dataset",
        ) from error
    check_columns(task, dataset.column_names, split)
    return {name: list(dataset[name]) for name in _wanted(task)}


def _wanted(task: TaskSpec) -> list[str]:
    return [*task.columns.text, *([task.columns.label] if task.columns.label else [])]
