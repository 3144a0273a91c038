"""Validation rows in two halves: a search selects on the first, and what it selected is judged on the second."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.data.rows import Rows
from pruning_core.evidence.context import generator

# With fewer rows a half says too little: all rows then select and judge, and a warning says so.
LEAST_ROWS_TO_HALVE = 200


@dataclass(frozen=True, slots=True)
class Halves:
    """The two halves of the rows; twice all of them where there are too few."""

    selecting: Rows
    judging: Rows

    @property
    def apart(self) -> bool:
        """Whether no row is in both."""
        return self.selecting is not self.judging


def halved(rows: Rows, seed: int, *, in_order: bool) -> Halves:
    """Split rows into halves.

    Args:
        rows: The validation rows.
        seed: Of the draw; within each class every second of its rows in drawn order selects.
        in_order: Whether rows continue each other, as lines of a text do: the first half then selects.
    """
    count = len(rows)
    if count < LEAST_ROWS_TO_HALVE:
        return Halves(rows, rows)
    if in_order:
        return Halves(rows.take(range(count // 2)), rows.take(range(count // 2, count)))
    drawn: list[int] = torch.randperm(count, generator=generator(seed, "halves")).tolist()
    classes = [label for label in rows.labels or () if isinstance(label, int)]
    if len(classes) == count:
        drawn.sort(key=classes.__getitem__)  # a stable sort: drawn order stays within a class
    return Halves(rows.take(sorted(drawn[::2])), rows.take(sorted(drawn[1::2])))
