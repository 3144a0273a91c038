"""Rows of a data set: the inputs and labels of one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruning_core.spec.labels import Label


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: the inputs of each row, and labels where the task names a column of them.

    Inputs are one or two texts, the words of a text, or one image as its file's bytes in base64. Rows whose input or label is
    null or blank are left out; so are the rows that the Hub marks as unlabelled (class -1).

    Attributes:
        texts: The inputs of each row.
        labels: One a row, as their kind parses them; names of classes until `pruning_core.data.labels.with_classes` has placed
            them.
        names: The model's classes, once they are known.
        left_out: Rows of the data set that are not among them.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Label, ...] | None
    names: tuple[str, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)

    def take(self, index: Sequence[int]) -> Rows:
        """Give some of the rows, in the order named."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in index)
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=labels)
