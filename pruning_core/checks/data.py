"""The check of a data set: by the reader that the job has, as far as a time goes, and saying what it did not look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from pruning_core.checks.findings import Findings
from pruning_core.checks.reader import check_chat_template, check_image_folder
from pruning_core.checks.task import check_kinds
from pruning_core.data.columns import Sketch, resolved
from pruning_core.data.defined import check_defined
from pruning_core.data.faults import check_columns
from pruning_core.data.formats.source import ReaderMissing
from pruning_core.data.head import Head
from pruning_core.data.images import images_of
from pruning_core.data.labels import own_classes, place_labels
from pruning_core.data.notes import notes_of
from pruning_core.data.opening import open_split
from pruning_core.data.read import Budget, Read, folder_of, has_labels, read_labels, read_some
from pruning_core.data.slices import check_slices, no_columns
from pruning_core.data.splits import find_split
from pruning_core.data.table import Role
from pruning_core.errors import DatasetInvalid
from pruning_core.files.columns import Column, read_columns
from pruning_core.files.paths import is_local
from pruning_core.spec.labels import Label
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import KINDS

# Of each split: the whole check is done in two seconds, and an inspection has 256 MiB of memory.
_BUDGET = Budget(seconds=0.6, characters=16 * 2**20)
_LABELS_S = 0.3
_MOST_CLASSES = 32
# Tokens that a tokenizer adds to a text, beside those of its bytes: of its beginning and end, and a space.
_ADDED = 3
_MOST_FOOTERS = 100
_ROLES: Mapping[Role, str] = {"train": "training", "validation": "validation"}


@dataclass(frozen=True, slots=True)
class SplitRead:
    """What was read of a split: its rows, as far as the budget went, and its labels, maybe further."""

    name: str
    read: Read
    labels: Sequence[Label] | None
    labelled: int
    labels_whole: bool


def check_data(spec: PruneSpec, head: Head | None) -> tuple[TaskSpec, Findings]:
    """Refuse a local data set that the job would refuse, as far as it is read.

    Args:
        spec: The request.
        head: The model's head; None where it is not known yet.

    Returns:
        The task with its columns named, and what was found.

    Raises:
        DatasetInvalid: The job would refuse the data.
    """
    task = spec.task
    folder = folder_of(task)
    if folder is None:
        return task, Findings(not_looked_at=("the data set, which is on the Hub",))
    if any(images_of(task, split) is not None for split in _splits(task).values()):
        return _image_folders(task, head, spec.evaluation.slices)
    try:
        return _rows(spec, head)
    except ReaderMissing as missing:
        return _footers(task, folder, head, missing, spec.evaluation.slices)


def _rows(spec: PruneSpec, head: Head | None) -> tuple[TaskSpec, Findings]:
    """Check rows by the job's own reader."""
    task, guessed = resolved(spec.task)
    splits = [read_split(task, role, name, _BUDGET) for role, name in _ROLES.items()]
    if is_local(spec.model) and any(split.read.rows.form == "chat" for split in splits):
        check_chat_template(Path(spec.model).expanduser())
    check_slices(spec.evaluation.slices, _columns_of(task, spec.evaluation.slices), splits[1].name)
    classes, placed = check_labels(task, splits, head, spec.evaluation.max_samples)
    notes = [note for split in splits for note in notes_of(task, split.read.rows, split.name)]
    notes += too_short(spec, splits[0])
    skipped = [said for split in splits for said in skipped_of(task, split)]
    labels = KINDS[task.type].labels
    if head is None and labels is not None and labels.classes != "none":
        skipped.append("labels against the model's classes: the model is on the Hub")
    counts: dict[str, int | None] = {
        role: split.labelled if split.labels_whole else None for role, split in zip(_ROLES, splits, strict=True)
    }
    return task, Findings(
        rows=counts,
        classes=classes,
        notes=tuple(dict.fromkeys([*guessed, *placed, *notes])),
        not_looked_at=tuple(dict.fromkeys(skipped)),
    )


def too_short(spec: PruneSpec, training: SplitRead) -> list[str]:
    """Say that texts which are joined to samples are surely too short for so many: a token has a byte at least.

    Args:
        spec: The request.
        training: Its training rows.
    """
    rows, options = training.read.rows, spec.calibration
    if spec.task.type != "text-generation" or not training.read.whole or rows.form != "plain":
        return []
    size = sum(len(text.encode(errors="replace")) for texts in rows.texts for text in texts)
    wanted = options.samples * options.max_length
    if size + _ADDED * len(rows) >= wanted:
        return []
    said = (
        f"the training texts have {size} bytes in all, too few for {options.samples} calibration samples of "
        f"{options.max_length} tokens, as asked for; the job takes all there is, and more text makes a better model"
    )
    return [said]


def _splits(task: TaskSpec) -> dict[Role, str]:
    return {"train": task.train_split, "validation": task.validation_split}


def _columns_of(task: TaskSpec, slices: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the validation split; it is opened only where slices ask for columns."""
    return open_split(task, "validation", slices).columns if slices else ()


def read_split(task: TaskSpec, role: Role, name: str, budget: Budget) -> SplitRead:
    """Read a split as far as a budget goes, and of the rest the labels, as far as a time goes.

    Args:
        task: Names all its columns.
        role: Which of its splits.
        name: The split's name in a sentence.
        budget: How much is read.
    """
    read = read_some(task, role, budget)
    if read.whole or not has_labels(task):
        return SplitRead(name, read, read.rows.labels, read.looked_at, read.whole)
    labels, count, whole = read_labels(task, open_split(task, role), _LABELS_S)
    if count <= read.looked_at:
        return SplitRead(name, read, read.rows.labels, read.looked_at, labels_whole=False)
    return SplitRead(name, read, labels, count, whole)


def check_labels(
    task: TaskSpec, splits: Sequence[SplitRead], head: Head | None, most: int | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Check labels by the functions that the job has.

    Args:
        task: The task that they are for.
        splits: Its splits; the last of them is judged.
        head: The model's head; None where it is not known yet.
        most: How many rows are judged at most; None: all.

    Returns:
        How many rows of the first split each class has, and what was decided.

    Raises:
        DatasetInvalid: The job would refuse the labels.
    """
    kind = KINDS[task.type].labels
    columns = [split.labels for split in splits if split.labels is not None]
    if kind is None or len(columns) < len(splits) or (head is None and kind.classes != "none"):
        return {}, ()
    names = () if head is None else head.names or tuple(f"LABEL_{index}" for index in range(head.classes))
    placed, notes = place_labels(task, columns, names, own_classes([split.read.rows.classes for split in splits]))
    for split in splits:
        rows = split.read.rows
        fault = kind.fault(rows.texts, rows.labels or ()) if split.read.whole or kind.row_by_row else None
        if fault is not None:
            raise DatasetInvalid(fault, param="task.columns.label")
    judged = splits[-1].read
    if judged.whole or most is None or most <= len(judged.rows):
        notes += check_defined(task, placed[-1][:most], names)
    counts: Counter[int] = Counter()
    for label in placed[0] if kind.classes != "none" else ():
        counts.update([label] if isinstance(label, int) else cast("tuple[int, ...]", label))
    return {names[place][:64]: count for place, count in counts.most_common(_MOST_CLASSES)}, notes


def skipped_of(task: TaskSpec, split: SplitRead) -> list[str]:
    """Say what of a split was not looked at."""
    found: list[str] = []
    if not split.read.whole:
        found.append(f"{' and '.join(task.columns.inputs)} of the {split.name} rows after the first {split.read.looked_at}")
        if has_labels(task) and not split.labels_whole:
            found.append(f"labels of the {split.name} rows after the first {split.labelled}")
    if KINDS[task.type].reads == "image":
        found.append(f"whether the images of the {split.name} rows can be decoded")
    return found


def _image_folders(task: TaskSpec, head: Head | None, slices: Sequence[str]) -> tuple[TaskSpec, Findings]:
    if slices:
        raise no_columns()
    task, _ = resolved(task)
    for split in _splits(task).values():
        images = images_of(task, split)
        if images is None:
            raise DatasetInvalid(
                f"the folder of the data set has no folder {split!r} with images, one folder a class", param="task.dataset"
            )
        check_image_folder(images, () if head is None else head.names)
    return task, Findings(not_looked_at=("whether the images can be decoded",))


def _footers(
    task: TaskSpec, folder: Path, head: Head | None, missing: ReaderMissing, slices: Sequence[str]
) -> tuple[TaskSpec, Findings]:
    """Check Parquet files by their footers alone: kinds of columns and bounds of numbers.

    Raises:
        ReaderMissing: A file is of a form of which nothing can be told.
    """
    said: tuple[str, ...] = ()
    for role in _ROLES:
        found = find_split(folder, task, role)
        if any(path.suffix != ".parquet" for path in found.files):
            raise missing
        for path in found.files[:_MOST_FOOTERS]:
            if (columns := read_columns(path)) is not None:
                task, guessed = resolved(task, partial(_sketch, columns))
                said += guessed
                check_columns(task, list(columns), found.name)
                check_kinds(task, columns, found.name, head)
                check_slices(slices if role == "validation" else (), list(columns), found.name)
    return task, Findings(
        notes=said, not_looked_at=("rows of Parquet files, of which the footers were read: pyarrow is not installed",)
    )


def _sketch(columns: Mapping[str, Column]) -> Sketch:
    return Sketch({}, {name: column.kind for name, column in columns.items()})
