"""Kinds of labels: how a data set writes them, and which of them are valid. Torch-free.

A kind is one object: a task's row names it, and all code that reads labels asks it. The task's family, in
`pruning_core.tasks`, turns labels into tensors.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal, cast

# The kind decides what a label is: a number, a name, a tuple of these, `Answers`, or a text.
Label = object
Inputs = Sequence[tuple[str, ...]]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONGEST_CELL = 2**20  # characters of a list that is written as text


def number_of(text: str) -> float | None:
    """Read a number that is written as text; None where the text is none, or not a finite one."""
    text = text.strip()
    found = float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else math.inf
    return found if math.isfinite(found) else None


def list_of(value: object) -> list[object] | None:
    """Return a list, or the list that a text is as JSON, which is how cells of a CSV file hold one; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("[") and len(value) <= _LONGEST_CELL:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return cast("list[object]", value) if isinstance(value, list) else None


@dataclass(frozen=True, slots=True)
class Answers:
    """The right answers to a question, and the character of the context at which each begins; there may be none."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]

    def in_place(self, context: str) -> list[bool]:
        """Return for each answer whether it stands in the context at its start."""
        return [start >= 0 and context.startswith(text, start) for text, start in zip(self.texts, self.starts, strict=True)]


class LabelKind(ABC):
    """One kind of label.

    Attributes:
        name: Name of the kind.
        words: Contents of a label column, as messages name them.
        columns: Kinds of columns (of `pruning_core.files.columns`) that may hold such labels.
        classes: Whether a label names no class of the model's head, one, or several. Where it names one, -1 means unlabelled,
            as on the Hub.
        row_by_row: Whether `fault` finds faults of single rows, so that some rows of a split are enough to find one.
        may_be_hot: Whether a label of several classes may be multi-hot: a zero or one for each class of the model.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("nested",)
    classes: ClassVar[Literal["none", "one", "several"]] = "none"
    row_by_row: ClassVar[bool] = False
    may_be_hot: ClassVar[bool] = False

    @abstractmethod
    def parse(self, value: object) -> Label | None:
        """Parse a value of the column; None where it is not a label of this kind."""

    def fault(self, inputs: Inputs, labels: Sequence[Label]) -> str | None:
        """Describe why the labels cannot be used with the inputs of their rows; None where they can."""
        del inputs, labels
        return None

    def oddity(self, inputs: Inputs, labels: Sequence[Label], split: str) -> str | None:
        """Describe what is odd about the labels of a split without being an error; None where nothing is."""
        del inputs, labels, split
        return None


class ClassLabel(LabelKind):
    """A class by its index or its name; indices may be written as text."""

    name = "class"
    words = "class indices or names"
    columns = ("number", "text")
    classes = "one"

    def parse(self, value: object) -> Label | None:
        """Parse a number, a yes or no, or a name."""
        if isinstance(value, str):
            return value.strip() or None
        return value if isinstance(value, bool) else _finite(value)


class NumberLabel(LabelKind):
    """A score."""

    name = "number"
    words = "numbers (scores)"
    columns = ("number", "text")

    def parse(self, value: object) -> Label | None:
        """Parse a number, or one that is written as text."""
        return number_of(value) if isinstance(value, str) else _finite(value)


class ClassesLabel(LabelKind):
    """Any number of classes, each by its index or its name; or a zero or one for each class of the model (multi-hot)."""

    name = "classes"
    words = "lists of class indices or names"
    columns = ("nested", "text")
    classes = "several"
    may_be_hot = True

    def parse(self, value: object) -> Label | None:
        """Parse a list of indices and names."""
        items = list_of(value)
        if items is None:
            return None
        right = all(isinstance(item, str) or _finite(item) is not None for item in items)
        return tuple(items) if right else None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float | Decimal) and abs(value) < 2**63 else None


class TagsLabel(ClassesLabel):
    """A class for each word of a row."""

    name = "tags"
    words = "lists of class indices or names, one a word"
    row_by_row = True
    may_be_hot = False

    def fault(self, inputs: Inputs, labels: Sequence[Label]) -> str | None:
        """Report the first row whose words and tags differ in number."""
        for row, (words, label) in enumerate(zip(inputs, labels, strict=True)):
            tags = cast("tuple[int, ...]", label)
            if len(words) != len(tags):
                return f"row {row} has {len(words)} words and {len(tags)} labels; every word needs one"
        return None


class TextLabel(LabelKind):
    """A text."""

    name = "text"
    words = "text"
    columns = ("text",)

    def parse(self, value: object) -> Label | None:
        """Parse a text."""
        return value if isinstance(value, str) else None


class AnswersLabel(LabelKind):
    """The answers to a question, and where they begin in its context."""

    name = "answers"
    words = "objects {text: [...], answer_start: [...]}, as SQuAD has them"

    def parse(self, value: object) -> Label | None:
        """Parse SQuAD's form, or a list of objects that have one text and one answer_start each."""
        if isinstance(value, list):
            items = cast("list[object]", value)
            objects = [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping)]
            if len(objects) < len(items):
                return None
            texts, starts = [item.get("text") for item in objects], [item.get("answer_start") for item in objects]
        elif isinstance(value, Mapping):
            given = cast("Mapping[str, object]", value)
            texts, starts = given.get("text"), given.get("answer_start")
        else:
            return None
        if not isinstance(texts, list) or not isinstance(starts, list):
            return None
        given_texts, given_starts = cast("list[object]", texts), cast("list[object]", starts)
        if len(given_texts) != len(given_starts):
            return None
        words = tuple(text for text in given_texts if isinstance(text, str))
        places = tuple(start for start in given_starts if isinstance(start, int))
        return Answers(words, places) if len(words) == len(given_texts) == len(places) else None

    def misplaced(self, inputs: Inputs, labels: Sequence[Label]) -> list[int]:
        """Return the indices of rows that have answers, none of which stands in the context at its start."""
        found: list[int] = []
        for row, ((_, context), label) in enumerate(zip(inputs, labels, strict=True)):
            answers = cast("Answers", label)
            if answers.texts and not any(answers.in_place(context)):
                found.append(row)
        return found

    def fault(self, inputs: Inputs, labels: Sequence[Label]) -> str | None:
        """Report that no row has an answer that stands in the context at its start."""
        missed = self.misplaced(inputs, labels)
        answered = [answers for answers in cast("Sequence[Answers]", labels) if answers.texts]
        if not missed or len(missed) < len(answered):
            return None
        answers, (_, context) = answered[0], inputs[missed[0]]
        start = answers.starts[0]
        there = context[max(0, start) : start + len(answers.texts[0])]
        return (
            f"none of {len(answered)} answered questions has an answer that stands in its context where answer_start says: row "
            f"{missed[0]} has {answers.texts[0][:64]!r}, and {there[:64]!r} stands at {start}; answer_start counts characters "
            "of the context, from 0"
        )

    def oddity(self, inputs: Inputs, labels: Sequence[Label], split: str) -> str | None:
        """Count the rows whose answers stand elsewhere in their contexts."""
        missed = self.misplaced(inputs, labels)
        if not missed:
            return None
        return (
            f"{len(missed)} of {len(inputs)} {split} rows have answers that do not stand in their contexts where answer_start "
            f"says (row {missed[0]} is the first); the loss treats them as unanswered"
        )
