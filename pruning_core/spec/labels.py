"""Kinds of labels: how a data set writes them, and which of them are valid. Torch-free.

A kind is one object: a task's row names it, and all code that reads labels asks it. The task's family, in
`pruning_core.tasks`, turns labels into tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal, cast

# The kind decides what a label is: a number, a name, a tuple of these, `Answers`, or a text.
Label = object
Inputs = Sequence[tuple[str, ...]]


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
    """

    name: ClassVar[str]
    words: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("nested",)
    classes: ClassVar[Literal["none", "one", "several"]] = "none"

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


class _Number(LabelKind):
    columns = ("number",)

    def parse(self, value: object) -> Label | None:
        """Parse a number."""
        return float(value) if isinstance(value, int | float | Decimal) else None


class ClassLabel(_Number):
    """A class by its index."""

    name = "class"
    words = "class indices"
    classes = "one"


class NamedClassLabel(ClassLabel):
    """A class by its index or its name."""

    columns = ("number", "text")

    def parse(self, value: object) -> Label | None:
        """Parse a number or a name."""
        return value if isinstance(value, str) else super().parse(value)


class NumberLabel(_Number):
    """A score."""

    name = "number"
    words = "numbers (scores)"


class ClassesLabel(LabelKind):
    """Any number of classes, each by its index or its name."""

    name = "classes"
    words = "lists of class indices or names"
    classes = "several"

    def parse(self, value: object) -> Label | None:
        """Parse a list of indices and names."""
        items = cast("list[object]", value) if isinstance(value, list) else [None]
        right = all(isinstance(item, int | str) and not isinstance(item, bool) for item in items)
        return tuple(items) if right else None


class TagsLabel(ClassesLabel):
    """A class for each word of a row."""

    name = "tags"
    words = "lists of class indices or names, one a word"

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
