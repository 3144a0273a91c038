"""Every data set that a spec names: its task's, of further sets, what ledger and vocabulary read, adapters. Torch-free.

Whoever resolves, confines, fetches, uploads or shows data asks here, so that no place is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pruning_core.spec.evaluation import AlsoSpec
from pruning_core.spec.prune import Columns, PruneSpec, TaskSpec

TASK_DATA = "task.dataset"


@dataclass(frozen=True, slots=True)
class DataPlace:
    """One reference to data.

    Attributes:
        param: Dotted path of its field.
        reference: A path, a Hub id, or the id of an upload.
        revision: Its revision on the Hub.
        revision_param: Dotted path of the field of the revision.
        config: Its configuration on the Hub.
        here: Whether it is read from a path or an upload alone, and so is no Hub id.
        of_model: Whether it is part of a model, and is uploaded as one.
    """

    param: str
    reference: str
    revision: str | None
    revision_param: str
    config: str | None
    here: bool = False
    of_model: bool = False


def data_places(spec: PruneSpec) -> tuple[DataPlace, ...]:
    """List the data that a spec names, that of its task first. Further sets of the task's own data name none."""
    task = spec.task
    found = [DataPlace(TASK_DATA, task.dataset, task.revision, "task.revision", task.config)]
    for place, own in enumerate(spec.evaluation.also):
        if own.data is not None:
            field = f"evaluation.also.{place}"
            found.append(DataPlace(f"{field}.data", own.data, own.revision, f"{field}.revision", own.config))
    ledger = spec.evaluation.ledger
    of_ledger = {} if ledger is None else ledger.places
    of_vocabulary = {} if spec.vocabulary is None else spec.vocabulary.places
    found += [DataPlace(param, place, None, "", None, here=True) for param, place in (of_ledger | of_vocabulary).items()]
    if spec.adapter is not None:
        found.append(DataPlace("adapter", spec.adapter, None, "", None, here=True, of_model=True))
    return tuple(found)


def with_data(spec: PruneSpec, references: Mapping[str, str]) -> PruneSpec:
    """Return a spec with other references to data, by the fields that `data_places` names. Nothing is validated anew."""
    also = tuple(
        own.model_copy(update={"data": references.get(f"evaluation.also.{place}.data", own.data)})
        for place, own in enumerate(spec.evaluation.also)
    )
    task = spec.task.model_copy(update={"dataset": references.get(TASK_DATA, spec.task.dataset)})
    found = _with(spec, task, also)
    if found.adapter is not None:
        found = found.model_copy(update={"adapter": references.get("adapter", found.adapter)})
    if found.vocabulary is not None and found.vocabulary.places:
        found = found.model_copy(update={"vocabulary": found.vocabulary.at(references)})
    ledger = found.evaluation.ledger
    if ledger is None or not ledger.places:
        return found
    evaluation = found.evaluation.model_copy(update={"ledger": ledger.at(references)})
    return found.model_copy(update={"evaluation": evaluation})


def with_columns(spec: PruneSpec, columns: Columns, also: Sequence[Columns | None]) -> PruneSpec:
    """Return a spec with the columns of its task and of its further sets; those that are None stay as they are."""
    sets = tuple(
        own if found is None else own.model_copy(update={"columns": found})
        for own, found in zip(spec.evaluation.also, also, strict=True)
    )
    return _with(spec, spec.task.model_copy(update={"columns": columns}), sets)


def _with(spec: PruneSpec, task: TaskSpec, also: tuple[AlsoSpec, ...]) -> PruneSpec:
    evaluation = spec.evaluation.model_copy(update={"also": also}) if also else spec.evaluation
    return spec.model_copy(update={"task": task, "evaluation": evaluation})
