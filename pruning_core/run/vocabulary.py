"""The model of a run with fewer tokens, where the request asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pruning_core.data.further import set_task
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.measure.ledger.made import docstrings, source_code
from pruning_core.report.vocabulary import VocabularyReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.vocabulary.cut import CutModel, Text, cut_vocabulary, texts_of

_OTHERS = 200  # texts of each kind: enough for two digits


def cut_model(spec: PruneSpec, whole: TaskModel, splits: Sequence[Rows], folder: Callable[[], Path]) -> CutModel | None:
    """Cut a model's vocabulary to what the request names; None where it stays whole.

    Args:
        spec: The request, with all columns named.
        whole: The loaded model.
        splits: The rows of the task, prepared for the model.
        folder: Makes the folder to write the model's files with fewer tokens to.
    """
    if spec.vocabulary is None:
        return None
    others = {
        "English documentation of Python": docstrings()[:_OTHERS],
        "source code of Python": source_code()[:_OTHERS],
    }
    return cut_vocabulary(whole, spec.vocabulary, _texts(spec, whole, splits), others, folder())


def notes_of_vocabulary(report: VocabularyReport | None) -> tuple[str, ...]:
    """Warn that figures over a cut vocabulary are better than those over the whole one, for both models."""
    if report is None or report.gained_nats is None:
        return ()
    said = (
        f"quality is over the tokens that stay, for the dense model, too: with the whole vocabulary its loss would be about "
        f"{report.gained_nats:.4f} higher"
    )
    return (said,)


def _texts(spec: PruneSpec, whole: TaskModel, splits: Sequence[Rows]) -> list[Text]:
    found = texts_of(spec.task, splits)
    for own in spec.evaluation.also:
        task, _guessed = set_task(spec.task, own)
        found += texts_of(task, [whole.family.prepared(whole, read_rows(task, "validation"))])
    return list(dict.fromkeys(found))
