"""A split of a data set as a table: columns by name, and rows that are read as they are asked for. Torch-free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

# What a split is for. Which of a data set's splits that is, the task says (`train_split`, `validation_split`).
Role = Literal["train", "validation"]
ROLES: tuple[Role, ...] = ("train", "validation")


class Table(ABC):
    """One split, opened.

    Attributes:
        name: Name for messages: the file's, or the split's.
        columns: Names of the columns, in their order.
        classes: Names of the classes by index, by column, where the files say them (the Hub's ClassLabel).
        typed: Whether values have types. In a CSV file all values are text.
        notes: What was guessed to open it, in sentences for whoever prepared the data.
    """

    name: str
    columns: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    typed: bool
    notes: tuple[str, ...]

    @abstractmethod
    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read the values of some columns, row by row and from the first row, with Python's own types.

        Args:
            names: Columns that the table has. No other column is read, and whatever is wrong in another does not matter.

        Raises:
            DatasetInvalid: The file is damaged, or what is read is not UTF-8.
        """
