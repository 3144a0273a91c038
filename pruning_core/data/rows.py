"""Rows of a data set: the inputs and labels of one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to a question that count as right, and where each begins in the context, in characters; none at all too."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]

    def in_place(self, context: str) -> list[bool]:
        """Tell of each whether it stands in the context where it is said to begin."""
        return [start >= 0 and context.startswith(text, start) for text, start in zip(self.texts, self.starts, strict=True)]


Label = float | str | tuple[int | str, ...] | Answers


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: the inputs of each row, and labels where the task names a column of them.

    Inputs are one or two texts, the words of a text, or one image as its file's bytes in base64. Rows whose input or label is
    null or blank are left out; so are the rows that the Hub marks as unlabelled (class -1).

    Attributes:
        texts: The inputs of each row.
        labels: One a row, as `pruning_core.data.labels` has them; names of classes until `with_classes` has placed them.
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
