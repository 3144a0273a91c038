"""Rows of a data set: local Parquet, JSON Lines and CSV files, or a data set of the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.errors import DatasetInvalid
from pruning_core.inputs import check_columns, is_local, split_file
from pruning_core.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: texts as one tuple a row (one or two strings), labels where the task names a column of them.

    A classification label is a class index, a regression label a float. Rows whose text or label is null are left out;
    so are the rows that the Hub's GLUE marks as unlabelled (label -1).
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
    labels: list[Any] | None = None
    if names.label is not None:
        labels = columns[names.label]
        if task.type != "feature-extraction" and any(isinstance(label, str) for label in labels[:100]):
            raise DatasetInvalid(
                f"column {names.label!r} holds text; a {task.type} task needs numbers there (class indices, scores)",
                param="task.columns.label",
            )
    keep = [i for i, text in enumerate(texts) if all(isinstance(part, str) for part in text)]
    if labels is not None:
        unlabelled = -1 if task.type == "text-classification" else None
        keep = [i for i in keep if labels[i] is not None and labels[i] != unlabelled]
    if not keep:
        raise DatasetInvalid(
            f"the {split} split has no usable row; it needs text in {', '.join(names.text)}", param="task.dataset"
        )
    return Rows(
        texts=tuple(texts[i] for i in keep),
        labels=None if labels is None else tuple(float(labels[i]) for i in keep),
    )


def check_labels(task: TaskSpec, rows: Rows, *, classes: int) -> None:
    """Check labels against the number of outputs of the model's head.

    Raises:
        DatasetInvalid: A class index that the head does not have, or a head that does not fit the task's type.
    """
    if task.type == "regression" and classes != 1:
        raise DatasetInvalid(f"regression needs a model with one output, this one has {classes}", param="task.type")
    if task.type != "text-classification" or rows.labels is None:
        return
    if classes < 2:
        raise DatasetInvalid("text-classification needs a model with two outputs or more, this one has one", param="task.type")
    wrong = next((label for label in rows.labels if label != int(label) or not 0 <= label < classes), None)
    if wrong is not None:
        raise DatasetInvalid(
            f"label {wrong:g} is no class of the model, which has {classes}: labels must be 0 to {classes - 1}",
            param="task.columns.label",
        )


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
