"""What can be wrong with a data set, in words that say what would be right. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

UNLABELLED = -1  # class index of unlabelled rows in GLUE on the Hub
# Names of columns in a message: a stranger's file may have a megabyte of them.
_MOST_SHOWN = 24
_LONGEST_SHOWN = 64


def check_columns(task: TaskSpec, present: list[str], split: str) -> None:
    """Check that a split has the columns that the task reads.

    Raises:
        DatasetInvalid: One is missing.
    """
    wanted = [*task.columns.inputs, *([task.columns.label] if task.columns.label else [])]
    for column in wanted:
        if column not in present:
            raise DatasetInvalid(
                f"the {split} split has no column {column!r}; it has {shown(sorted(present), _MOST_SHOWN)}. "
                "Name the right ones in task.columns",
                param="task.columns",
            )


def check_label(label: float, classes: int) -> None:
    """Check a class index against the number of classes.

    Raises:
        DatasetInvalid: The label is not a whole number from 0 to ``classes - 1``.
    """
    if not math.isfinite(label) or label != int(label) or not 0 <= label < classes:
        raise DatasetInvalid(
            f"label {label:g} is no class of the model, which has {classes}: labels must be 0 to {classes - 1}",
            param="task.columns.label",
        )


def check_name(name: str, names: Sequence[str]) -> None:
    """Check the name of a class against the model's classes.

    Raises:
        DatasetInvalid: The model has no class of that name.
    """
    if name not in names:
        message = f"label {name[:64]!r} is no class of the model, which has {shown(names)}"
        raise DatasetInvalid(message, param="task.columns.label")


def shown(names: Sequence[str], most: int = 8) -> str:
    """List names for a message: a few of them, and none at full length that is not one."""
    return ", ".join(name[:_LONGEST_SHOWN] for name in names[:most]) + (", ..." if len(names) > most else "")


def label_is_wrong(task: TaskSpec, what: str) -> DatasetInvalid:
    """Make the error for a label column that does not hold what the task needs.

    Args:
        task: The task; its type decides which labels are valid.
        what: Start of the message, which says what was found.
    """
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    return DatasetInvalid(f"{what}; a {task.type} task needs {kind.words} there", param="task.columns.label")


def no_image(which: str, why: str) -> DatasetInvalid:
    """Return the error for a file that is not an image.

    Args:
        which: Name of the file, or the place where it was found.
        why: Reason, in parentheses in the message.
    """
    return DatasetInvalid(
        f"{which} is no image that can be read ({why}); PNG, JPEG and WebP files are", param="task.columns.image"
    )


def not_utf8(what: str, param: str) -> DatasetInvalid:
    """Return the error for text in another encoding.

    Args:
        what: Name of the file or the column.
        param: Field of the spec to change.
    """
    return DatasetInvalid(f"{what} is not written in UTF-8; save the file in UTF-8 (iconv -t UTF-8 converts it)", param=param)
