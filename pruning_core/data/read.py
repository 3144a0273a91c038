"""Reading rows of a data set: local Parquet, JSON Lines and CSV files, folders of images, or a data set of the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never, cast

from pruning_core.checks.request import check_columns
from pruning_core.data.images import encode_picture, read_image_folder
from pruning_core.data.labels import parse_labels
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.files.columns import not_utf8
from pruning_core.files.hub import dataset_folder
from pruning_core.files.paths import image_folder, is_local, split_file
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS, Reads

_READ: Mapping[Reads, str] = {"text": "text", "words": "lists of words", "image": "images"}


def read_rows(task: TaskSpec, split: str) -> Rows:
    """Read a split of the task's data set.

    Raises:
        DatasetInvalid: The split is missing, unreadable or empty, lacks a column that the task reads, or has a label of the
            wrong type.
    """
    folder = Path(task.dataset).expanduser() if is_local(task.dataset) else None
    if folder is not None and KINDS[task.type].reads == "image" and image_folder(folder, split) is not None:
        texts, named = read_image_folder(folder, split)
        return Rows(texts, named)
    columns = _read_hub(task, split) if folder is None else _read_local(task, split)
    names = task.columns
    texts = [_inputs(task, row, folder) for row in zip(*(columns[name] for name in names.inputs), strict=True)]
    has_labels = names.label is not None and KINDS[task.type].labels is not None
    labels = parse_labels(task, columns[cast("str", names.label)]) if has_labels else None
    keep = [i for i, text in enumerate(texts) if text is not None and (labels is None or _is_there(labels[i]))]
    if not keep:
        reads = _READ[KINDS[task.type].reads]
        labelled = f" and labels in {names.label}" if has_labels else ""
        raise DatasetInvalid(
            f"the {split} split has no usable row; it needs {reads} in {', '.join(names.inputs)}{labelled}",
            param="task.dataset",
        )
    return Rows(
        texts=tuple(text for i in keep if (text := texts[i]) is not None),
        labels=None if labels is None else tuple(label for i in keep if (label := labels[i]) is not None),
        left_out=len(texts) - len(keep),
    )


def _is_there(label: Label | None) -> bool:
    return label is not None and not (isinstance(label, str) and not label.strip())


def _inputs(task: TaskSpec, values: tuple[Any, ...], folder: Path | None) -> tuple[str, ...] | None:
    """Return the inputs of one row; None where an input is missing or all are blank."""
    reads = KINDS[task.type].reads
    match reads:
        case "image":
            return encode_picture(values[0], folder)
        case "words":
            parts = cast("Sequence[object]", values[0]) if isinstance(values[0], list) else ()
        case "text":
            parts = values
        case _:
            assert_never(reads)
    if not parts or not all(isinstance(part, str) for part in parts):
        return None
    texts = cast("tuple[str, ...]", tuple(parts))
    if not any(map(str.strip, texts)):
        return None
    return texts if task.prefix is None else tuple(task.prefix + text for text in texts)


def _read_local(task: TaskSpec, split: str) -> dict[str, list[Any]]:
    import pyarrow as pa

    path = split_file(Path(task.dataset).expanduser(), split)
    try:
        table = _read_table(path)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise_if_exhausted(error, f"{path.name} was read")
        reason = str(error).splitlines()[0][:200]
        raise DatasetInvalid(f"{path.name} cannot be read: {reason}", param="task.dataset") from error
    check_columns(task, table.column_names, split)
    return {name: _values(table.column(name), name, split, is_image=name == task.columns.image) for name in _wanted(task)}


def _values(column: Any, name: str, split: str, *, is_image: bool) -> list[Any]:
    """Return the values of an Arrow column. Arrow reads text in an encoding other than UTF-8 as bytes, or fails to decode it.

    Raises:
        DatasetInvalid: The column's text is not UTF-8.
    """
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        raise not_utf8(f"column {name!r} of the {split} split", "task.columns") from None
    if pa.types.is_binary(column.type) and not is_image:
        raise not_utf8(f"column {name!r} of the {split} split", "task.columns")
    return values


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
    check_columns(task, dataset.column_names, split)
    if task.columns.image is not None:  # keep the stored bytes: the model's own processor decodes them
        dataset = dataset.cast_column(task.columns.image, datasets.Image(decode=False))
    return {name: list(dataset[name]) for name in _wanted(task)}


def _wanted(task: TaskSpec) -> list[str]:
    return [*task.columns.inputs, *([task.columns.label] if task.columns.label else [])]
