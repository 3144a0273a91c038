"""What is said of a split's rows to whoever prepared the data, without being an error. Torch-free."""

from __future__ import annotations

from pruning_core.data.rows import Rows
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS


def notes_of(task: TaskSpec, rows: Rows, name: str) -> list[str]:
    """Say what was guessed, decided and left out, and what is odd about the labels.

    Args:
        task: The task that the rows are for.
        rows: The rows, with parsed labels.
        name: Name of the split in a sentence: training or validation.
    """
    found = list(rows.notes)
    if rows.left_out:
        whole = len(rows) + rows.left_out
        found.append(f"{rows.left_out} of {whole} {name} rows were left out: their text or label is empty or missing")
    labels = KINDS[task.type].labels
    if labels is not None and rows.labels is not None and (odd := labels.oddity(rows.texts, rows.labels, name)):
        found.append(odd)
    return found
