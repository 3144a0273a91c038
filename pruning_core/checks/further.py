"""The check of further evaluation sets: as that of the task's data, each within a smaller budget. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pruning_core.checks.data import check_labels, read_split, skipped_of
from pruning_core.checks.findings import Findings
from pruning_core.checks.reader import check_chat_template, check_image_folder
from pruning_core.data.formats.source import ReaderMissing
from pruning_core.data.further import in_words_of, said_of_set, set_task, task_of_set
from pruning_core.data.head import Head, check_head
from pruning_core.data.images import images_of
from pruning_core.data.notes import notes_of
from pruning_core.data.read import Budget
from pruning_core.errors import together
from pruning_core.files.paths import is_local
from pruning_core.spec.evaluation import AlsoSpec
from pruning_core.spec.prune import PruneSpec

# Of each set: an inspection has 15 seconds of a processor for all of them, the model and the task's data.
_BUDGET = Budget(seconds=0.3, characters=4 * 2**20)
_NAME = "evaluation"


@dataclass(frozen=True, slots=True)
class _Found:
    """A set with the columns that the job will read, and sentences about it."""

    own: AlsoSpec
    notes: Sequence[str] = ()
    not_looked_at: Sequence[str] = ()


def check_further(spec: PruneSpec, head: Head | None) -> tuple[PruneSpec, Findings]:
    """Refuse further evaluation sets that the job would refuse, as far as they are read.

    Args:
        spec: The request.
        head: The model's head; None where it is not known yet.

    Returns:
        The request with the sets' columns named, and what was found.

    Raises:
        DatasetInvalid: The job would refuse one of them.
    """
    if not spec.evaluation.also:
        return spec, Findings()
    found: list[_Found] = []
    together([partial(_check, spec, place, own, head, found) for place, own in enumerate(spec.evaluation.also)])
    evaluation = spec.evaluation.but(also=tuple(one.own for one in found))
    notes = [said_of_set(place, one.own, note) for place, one in enumerate(found) for note in one.notes]
    skipped = [said_of_set(place, one.own, said) for place, one in enumerate(found) for said in one.not_looked_at]
    return spec.model_copy(update={"evaluation": evaluation}), Findings(notes=tuple(notes), not_looked_at=tuple(skipped))


def _check(spec: PruneSpec, place: int, own: AlsoSpec, head: Head | None, found: list[_Found]) -> None:
    with in_words_of(place, own):
        asked = task_of_set(spec.task, own)
        if head is not None:
            check_head(asked, head.classes, head.names)
        if not is_local(asked.dataset):
            found.append(_Found(own, (), ("its data, which is on the Hub",)))
            return
        try:
            found.append(_checked(spec, own, head))
        except ReaderMissing:
            found.append(_Found(own, (), ("its rows: pyarrow is not installed",)))


def _checked(spec: PruneSpec, own: AlsoSpec, head: Head | None) -> _Found:
    task, guessed = set_task(spec.task, own)
    if (images := images_of(task, task.validation_split)) is not None:
        check_image_folder(images, () if head is None else head.names)
        return _Found(own, (), ("whether the images can be decoded",))
    split = read_split(task, "validation", _NAME, _BUDGET)
    if is_local(spec.model) and split.read.rows.form == "chat":
        check_chat_template(Path(spec.model).expanduser())
    _, placed = check_labels(task, [split], head, own.max_samples or spec.evaluation.max_samples)
    notes = [*guessed, *placed, *notes_of(task, split.read.rows, _NAME)]
    return _Found(own.but(columns=task.columns), tuple(dict.fromkeys(notes)), skipped_of(task, split))
