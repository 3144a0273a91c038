"""Further evaluation sets of a run: read before any work, and judged for each checkpoint, dense and pruned on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pruning_core.data.defined import check_defined
from pruning_core.data.further import in_words_of, said_of_set, set_task
from pruning_core.data.labels import with_classes
from pruning_core.data.notes import notes_of
from pruning_core.data.read import read_rows
from pruning_core.errors import MetricUndefined, NotFinite
from pruning_core.kept.statistics import Statistics
from pruning_core.measure.quality import Evaluator
from pruning_core.report.also import AlsoReport
from pruning_core.spec.evaluation import AlsoSpec, EvaluationSpec
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.registry import family_of


@dataclass(frozen=True, slots=True)
class FurtherSet:
    """One set.

    Attributes:
        name: Its name.
        task: Its task, with all columns named.
        evaluator: Evaluates models on its rows.
        notes: What was guessed, decided or left out.
    """

    name: str
    task: TaskSpec
    evaluator: Evaluator
    notes: tuple[str, ...]

    def judge(self, pruned: TaskModel, on_batch: Callable[[int], None]) -> AlsoReport:
        """Compare a checkpoint with the dense model. What cannot be judged has a reason, and does not end the job."""
        quality, reason = None, None
        try:
            quality = self.evaluator.judge(_as(pruned, self.task), on_batch, where=False).quality
        except (MetricUndefined, NotFinite) as error:
            reason = error.message
        return AlsoReport(
            name=self.name,
            task=self.task.type,
            metric=self.task.metric,
            samples=self.evaluator.rows if quality is None else quality.samples,
            quality=quality,
            reason=reason,
        )


def further_sets(spec: PruneSpec, dense: TaskModel, statistics: Statistics | None = None) -> tuple[FurtherSet, ...]:
    """Read and encode the further sets of a request, whose task has its columns named.

    Raises:
        DatasetInvalid: A set cannot be read, or does not fit the model; the error names the set.
    """
    return tuple(_set(spec, dense, place, own, statistics) for place, own in enumerate(spec.evaluation.also))


def judge_all(sets: Sequence[FurtherSet], pruned: TaskModel, on_batch: Callable[[int], None], done: int) -> list[AlsoReport]:
    """Judge a checkpoint on all sets.

    Args:
        sets: The sets.
        pruned: The checkpoint, as loaded back.
        on_batch: Called after each batch with the number of finished batches.
        done: Batches that were finished before.
    """
    found: list[AlsoReport] = []
    for own in sets:
        steps, before = own.evaluator.steps, done
        found.append(own.judge(pruned, lambda step, before=before: on_batch(before + step)))
        done += steps
    return found


def notes_of_sets(sets: Sequence[FurtherSet]) -> list[str]:
    """Return the notes of all sets, for the warnings of the report."""
    return [note for own in sets for note in own.notes]


def _set(spec: PruneSpec, dense: TaskModel, place: int, own: AlsoSpec, statistics: Statistics | None) -> FurtherSet:
    most = own.max_samples or spec.evaluation.max_samples
    with in_words_of(place, own):
        task, guessed = set_task(spec.task, own)
        model = _as(dense, task)
        rows = with_classes(task, model.family.prepared(model, read_rows(task, "validation")), dense.classes)
        same = check_defined(task, (rows.labels or ())[:most], dense.classes)
        evaluation = EvaluationSpec(max_samples=most, max_length=spec.evaluation.max_length, examples=0)
        # A floor is of the task's own rows. The copy is no request, and is not validated as one.
        part = spec.model_copy(update={"task": task, "evaluation": evaluation, "quality_floor": None})
        evaluator = Evaluator(part, model, rows, of=f"evaluation set {own.name}", statistics=statistics)
    notes = [said_of_set(place, own, note) for note in (*guessed, *notes_of(task, rows, "evaluation"), *same)]
    return FurtherSet(own.name, task, evaluator, tuple(dict.fromkeys(notes)))


def _as(model: TaskModel, task: TaskSpec) -> TaskModel:
    """Return a model as it answers the task of a set, by the same head."""
    return model if model.task_type == task.type else replace(model, task_type=task.type, family=family_of(task.type))
