"""Rows of a data set: the inputs and labels of one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruning_core.spec.labels import Label


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: the inputs of each row, and its label where the task names a label column.

    The inputs of a row are one or two texts, the words of a text, or an image file's bytes in base64. Rows with a null or blank
    input or label are left out; so are rows that the Hub marks as unlabelled (class -1).

    Attributes:
        texts: The inputs of each row.
        labels: One parsed label a row. Names of classes become indices in `pruning_core.data.labels.with_classes`.
        names: Names of the model's classes, once they are known.
        left_out: Number of rows of the split that were left out.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Label, ...] | None
    names: tuple[str, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    def take(self, index: Sequence[int]) -> Rows:
        """Return the rows at these indices, in this order."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in index)
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=labels)
