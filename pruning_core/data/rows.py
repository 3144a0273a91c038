"""Rows of a data set: the inputs and labels of one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pruning_core.spec.labels import Label

# A value by which a row is sliced: a number, a text, or none.
Value = float | str | None

Form = Literal["plain", "chat", "rendered"]


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: the inputs of each row, and its label where the task names a label column.

    The inputs of a row are one or two texts, the words of a text, a chat as JSON, or an image file's bytes in base64. Rows with
    a null or blank input or label are left out; so are rows that the Hub marks as unlabelled (class -1), and those whose input
    is of another kind than the task reads.

    Attributes:
        texts: The inputs of each row.
        labels: One parsed label a row. Names of classes become indices in `pruning_core.data.labels.placed`.
        names: Names of the model's classes, once they are known.
        left_out: Number of rows of the split that were left out.
        classes: Names that the data gives to the indices of its classes; empty where it gives none.
        notes: What was guessed, decided or left out, in sentences for whoever prepared the data.
        form: What the texts are: plain texts, chats as JSON (see `pruning_core.data.chats`), or chats that the tokenizer's
            template has turned into texts, which bring their own special tokens.
        slices: The values of each column that the rows are sliced by, one a row.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Label, ...] | None
    names: tuple[str, ...] = ()
    left_out: int = 0
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    form: Form = "plain"
    slices: Mapping[str, tuple[Value, ...]] = field(default_factory=dict[str, "tuple[Value, ...]"])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    def take(self, index: Sequence[int]) -> Rows:
        """Return the rows at these indices, in this order."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in index)
        slices = {column: tuple(values[i] for i in index) for column, values in self.slices.items()}
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=labels, slices=slices)
