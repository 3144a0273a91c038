"""The tasks by name: their rows, and the fields that a spec needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.held_out.packages import available_packages, dense_model, wordnet_nouns
from benchmarks.held_out.rows import Size, Splits
from benchmarks.held_out.sections import sections
from benchmarks.held_out.similarity import pairs
from benchmarks.held_out.training import fine_tune
from benchmarks.held_out.wordnet import glosses, read_nouns


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A task that no default was chosen on.

    Attributes:
        name: Short name.
        type: Type of task of a spec.
        texts: Columns of the input.
        label: Column of the class or score.
        metric: The metric.
        made: Makes the rows, given a folder for what is fetched.
    """

    name: str
    type: str
    texts: tuple[str, ...]
    label: str
    metric: str
    made: Callable[[Path], Splits]


HELD_OUT = (
    HeldOut(
        "glosses",
        "text-classification",
        ("text",),
        "label",
        "accuracy",
        lambda fetched: glosses(read_nouns(wordnet_nouns(fetched)), Size()),
    ),
    HeldOut(
        "similarity",
        "regression",
        ("first", "second"),
        "score",
        "spearman",
        lambda fetched: pairs(read_nouns(wordnet_nouns(fetched))),
    ),
    HeldOut(
        "sections",
        "text-classification",
        ("text",),
        "label",
        "accuracy",
        lambda _fetched: sections(available_packages(), Size()),
    ),
)


@dataclass(frozen=True, slots=True)
class Ready:
    """A task with its data and its model.

    Attributes:
        model: Folder of the fine-tuned model.
        task: The spec's ``task``.
        about: What was made: rows, classes, the digest of all rows.
    """

    model: Path
    task: dict[str, Any] | str
    about: dict[str, object]


def prepare(task: HeldOut, folder: Path, told: Callable[[str], None]) -> Ready:
    """Make rows and a fine-tuned model in a folder; what an earlier run has made of the same rows is taken.

    Raises:
        SystemExit: Other rows are in the folder than apt gives now.
    """
    splits = task.made(folder / "packages")
    data, model, stamp = folder / "data" / task.name, folder / "models" / task.name, folder / f"{task.name}.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") != splits.digest:
        raise SystemExit(f"{folder} holds a model of other rows of {task.name}: name another folder by --out")
    splits.write(data)
    stamp.write_text(splits.digest, encoding="utf-8")
    model.parent.mkdir(exist_ok=True)
    fine_tune(dense_model(), data, task.texts, task.label, model, lambda line: told(f"{task.name}: {line}"))
    columns = {"text": list(task.texts), "label": task.label}
    fields = {"type": task.type, "dataset": str(data), "columns": columns, "metric": task.metric}
    counted = {"train": len(splits.train), "validation": len(splits.validation), "classes": list(splits.classes)}
    return Ready(model, fields, {**counted, "sha256": splits.digest})
