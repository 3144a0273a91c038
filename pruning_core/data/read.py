"""Reading rows of a data set: local Parquet, JSON Lines and CSV files, folders of images, or a data set of the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never, cast

from pruning_core.data.faults import check_columns
from pruning_core.data.images import encode_picture, read_image_folder
from pruning_core.data.labels import parse_labels
from pruning_core.data.opening import open_split
from pruning_core.data.rows import Rows
from pruning_core.data.table import Role
from pruning_core.errors import DatasetInvalid
from pruning_core.files.paths import image_folder, is_local
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS, Reads

_READ: Mapping[Reads, str] = {"text": "text", "words": "lists of words", "image": "images"}


def read_rows(task: TaskSpec, role: Role) -> Rows:
    """Read the split of the task's data set that has a role.

    Raises:
        DatasetInvalid: The split is missing, unreadable or empty, lacks a column that the task reads, or has a label of the
            wrong type.
    """
    split = task.train_split if role == "train" else task.validation_split
    folder = Path(task.dataset).expanduser() if is_local(task.dataset) else None
    if folder is not None and KINDS[task.type].reads == "image" and image_folder(folder, split) is not None:
        texts, named = read_image_folder(folder, split)
        return Rows(texts, named)
    table = open_split(task, role)
    check_columns(task, list(table.columns), split)
    wanted, names = _wanted(task), task.columns
    values = list(table.rows(wanted))
    columns = {name: [row[i] for row in values] for i, name in enumerate(wanted)}
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


def _wanted(task: TaskSpec) -> list[str]:
    return [*task.columns.inputs, *([task.columns.label] if task.columns.label else [])]
