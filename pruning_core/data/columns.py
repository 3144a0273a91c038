"""Columns that a task does not name, guessed by their names, and by what they hold where only one fits. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pruning_core.data.faults import shown
from pruning_core.data.images import images_of
from pruning_core.data.labels import is_missing
from pruning_core.data.opening import open_split
from pruning_core.data.table import Table
from pruning_core.data.values import kind_of
from pruning_core.errors import DatasetInvalid
from pruning_core.files.columns import Kind
from pruning_core.spec.labels import list_of, number_of
from pruning_core.spec.prune import Columns, TaskSpec
from pruning_core.spec.tasks import KINDS

_SAMPLE = 32  # rows by which a column is judged
_MOST_SHOWN = 24

_TEXTS = (
    *("text", "sentence", "content", "review", "comment", "body", "document", "article", "tweet", "message", "utterance"),
    *("question", "query", "prompt", "input", "review_text", "comment_text", "review_body", "description", "headline", "sms"),
)
_PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2")),
    *(("text_a", "text_b"), ("sentence_a", "sentence_b"), ("question", "sentence"), ("query", "passage")),
    *(("query", "document"), ("question", "context")),
)
_CLASSES = ("label", "labels", "class", "target", "category", "sentiment", "emotion", "intent", "topic", "stars", "rating")
_SCORES = ("score", "label", "labels", "similarity", "similarity_score", "relatedness_score", "target", "stars", "rating")

# Names of inputs, and of labels, by type of task; the first that is there and holds what the task reads is meant.
_INPUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "sentence-similarity": _PAIRS,
    "token-classification": (("tokens",), ("words",), ("sentence",), ("text",)),
    "question-answering": (("question", "context"),),
    "text-generation": tuple((name,) for name in ("text", "messages", "conversations", "conversation", "chat", *_TEXTS[2:])),
    "summarization": tuple(
        (name,) for name in ("document", "article", "dialogue", "text", "content", "body", "source", "input")
    ),
    "translation": tuple((name,) for name in ("source", "src", "src_text", "input", "text")),
    "image-classification": tuple((name,) for name in ("image", "img", "picture", "photo", "file_name", "path")),
}
_TAKES_PAIRS = ("text-classification", "multi-label-classification", "regression")
_LABELS: Mapping[str, tuple[str, ...]] = {
    "regression": _SCORES,
    "sentence-similarity": _SCORES,
    "token-classification": ("ner_tags", "tags", "labels", "label", "ner", "pos_tags", "pos"),
    "question-answering": ("answers", "answer"),
    "summarization": ("summary", "highlights", "abstract", "target", "headline", "title"),
    "translation": ("target", "tgt", "tgt_text", "output", "translation"),
}
# Kinds of columns by a file's footer that may hold what a task reads.
_FOOTERS: Mapping[str, tuple[Kind, ...]] = {"text": ("text",), "words": ("nested",), "image": ("unknown", "nested", "text")}


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is known of a split's columns: the first values of each that are there, or the kind that a footer says."""

    values: Mapping[str, Sequence[Any]]
    kinds: Mapping[str, Kind]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*self.values, *self.kinds)


def is_complete(task: TaskSpec) -> bool:
    """Return whether a task names all columns that it reads."""
    return bool(task.columns.inputs) and (KINDS[task.type].labels is None or task.columns.label is not None)


def resolved(task: TaskSpec, sketch: Callable[[], Sketch] | None = None) -> tuple[TaskSpec, tuple[str, ...]]:
    """Return a task that names all its columns, and what was guessed, in sentences.

    Args:
        task: The task.
        sketch: What is known of the training split's columns; None: its first rows are read.

    Raises:
        DatasetInvalid: The columns cannot be guessed, or the split cannot be read.
    """
    if is_complete(task):
        return task, ()
    if images_of(task, task.train_split) is not None:  # the folders are the classes, and no column is read
        return task.but(columns=Columns(image="image", label="label")), ()
    known = _sketch(task) if sketch is None else sketch()
    given = [*task.columns.inputs, *([task.columns.label] if task.columns.label else [])]
    inputs = task.columns.inputs or _guessed_inputs(task, known, given)
    label = task.columns.label
    if label is None and KINDS[task.type].labels is not None:
        label = _guessed_label(task, known, [*given, *inputs])
    is_image = KINDS[task.type].reads == "image"
    columns = Columns(text=() if is_image else tuple(inputs), image=inputs[0] if is_image else None, label=label)
    return task.but(columns=columns), (_say(task, inputs, label, known),)


def _sketch(task: TaskSpec) -> Sketch:
    table = open_split(task, "train")
    if KINDS[task.type].reads == "image" and task.columns.image is None:  # only of a column of images are bytes no text
        spelled = {name.lower(): name for name in reversed(table.columns)}
        likely = next((spelled[name] for (name,) in _INPUTS[task.type] if name in spelled), None)
        if likely is not None:
            table = open_split(task.but(columns=Columns(image=likely, label=task.columns.label)), "train")
    return sketch_of(table)


def sketch_of(table: Table) -> Sketch:
    """Read the first values of each column. A column that cannot be read is left out: it may be one that nobody needs."""
    found: dict[str, list[Any]] = {}
    for name in table.columns:
        try:
            values = [value for (value,) in itertools.islice(table.rows([name]), _SAMPLE) if not is_missing(value)]
        except DatasetInvalid:
            continue
        found[name] = values if table.typed else [_typed(value) for value in values]
    return Sketch(found, {})


def _typed(cell: Any) -> Any:
    """Return what a cell of a CSV file is: a number, a list, or a text."""
    if not isinstance(cell, str):
        return cell
    number, items = number_of(cell), list_of(cell)
    return cell if number is None and items is None else number if items is None else items


def _guessed_inputs(task: TaskSpec, known: Sketch, taken: Sequence[str]) -> tuple[str, ...]:
    kind, free = KINDS[task.type], [name for name in known.names if name not in taken]
    named = _INPUTS.get(task.type, tuple((name,) for name in _TEXTS))
    if task.type in _TAKES_PAIRS:
        named = (("text",), *_PAIRS, *named)
    here = {name.lower(): name for name in reversed(free)}
    fitting = {name for name in free if _reads(task, known, name)}
    for names in named:
        found = tuple(here[name] for name in names if name in here)
        if len(found) == len(names) and fitting.issuperset(found):
            return found
    labels = (
        {here[name] for name in _LABELS.get(task.type, _CLASSES) if name in here} if kind.labels is not None else set[str]()
    )
    rest = [name for name in free if name in fitting and name not in labels]
    if len(rest) == len(kind.inputs) == 1 or (len(rest) == 1 and kind.optional):
        return tuple(rest)
    if task.type == "translation" and "translation" in here:
        raise _unclear(
            f"column {here['translation']!r} holds objects with a text for each language: write the text and its translation "
            "into two columns",
            "text",
        )
    what = " and ".join(kind.inputs[:1] if kind.optional else kind.inputs)
    many = f"several hold {_what(task)}" if len(rest) > 1 else "none is known by its name"
    raise _unclear(
        f"it is not clear which column holds {what}: {many}. The data has {shown(sorted(known.names), _MOST_SHOWN)}; name "
        f"the right one in task.columns.{_field(task)}",
        _field(task),
    )


def _guessed_label(task: TaskSpec, known: Sketch, taken: Sequence[str]) -> str:
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    free = [name for name in known.names if name not in taken]
    fitting = [name for name in free if _labels(task, known, name)]
    here = {name.lower(): name for name in reversed(fitting)}
    for name in _LABELS.get(task.type, _CLASSES):
        if name in here:
            return here[name]
    if len(fitting) == len(free) == 1:
        return fitting[0]
    raise _unclear(
        f"it is not clear which column holds the labels, which are {kind.words}. The data has "
        f"{shown(sorted(known.names), _MOST_SHOWN)}; name the right one in task.columns.label",
        "label",
    )


def _reads(task: TaskSpec, known: Sketch, name: str) -> bool:
    """Return whether a column holds what the task reads."""
    kind = KINDS[task.type]
    if name in known.kinds:
        return known.kinds[name] in (*_FOOTERS[kind.reads], *(("nested",) if kind.takes_chats else ()))
    found = {kind_of(value) for value in known.values[name]}
    wanted = {"text": {"text"}, "words": {"lists of text"}, "image": {"bytes", "objects", "text"}}[kind.reads]
    return bool(found) and (found <= wanted or (kind.takes_chats and found == {"chats"}))


def _labels(task: TaskSpec, known: Sketch, name: str) -> bool:
    """Return whether a column holds labels of the task's kind."""
    kind = KINDS[task.type].labels
    assert kind is not None, "only asked of tasks with labels"
    if name in known.kinds:
        return known.kinds[name] in ("unknown", *kind.columns)
    values = known.values[name]
    return bool(values) and all(kind.parse(value) is not None for value in values)


def _what(task: TaskSpec) -> str:
    return {"text": "text", "words": "lists of words", "image": "images"}[KINDS[task.type].reads]


def _field(task: TaskSpec) -> Literal["image", "text"]:
    return "image" if KINDS[task.type].reads == "image" else "text"


def _say(task: TaskSpec, inputs: Sequence[str], label: str | None, known: Sketch) -> str:
    said = [f"{_field(task)} in {' and '.join(repr(name[:64]) for name in inputs)}"] if not task.columns.inputs else []
    said += [f"labels in {label[:64]!r}"] if task.columns.label is None and label is not None else []
    others = sorted(set(known.names) - {*inputs, label})
    left = f"; not used: {shown(others)}" if others else ""
    return f"columns were guessed: {', '.join(said)}{left}. Name others in task.columns if that is wrong"


def _unclear(message: str, field: str) -> DatasetInvalid:
    return DatasetInvalid(message, param=f"task.columns.{field}")
