"""What a run read and where it ran, for the report: enough to make the bundle again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pruning_core.data.digests import rows_digest
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.data.table import ROLES
from pruning_core.files.digests import commit_of, model_digests
from pruning_core.files.paths import is_local
from pruning_core.files.provenance import shown_name, shown_spec
from pruning_core.machine.environment import machine
from pruning_core.report.reproduction import ReproductionReport, SourceReport, command_for
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel


def read_splits(spec: PruneSpec, dense: TaskModel, origin: Path, *, private: bool) -> tuple[list[Rows], ReproductionReport]:
    """Read the splits of a task, prepare them for its model, and describe what the run is made of.

    Args:
        spec: The request, with the columns that were guessed.
        dense: The loaded model.
        origin: Folder of the model as it was given.
        private: Whether the places of folders are nobody's business: their last names stay.

    Returns:
        Rows for training and for validation, and what it takes to make the bundle again.
    """
    splits: list[Rows] = []
    digests: dict[str, str] = {}
    for role in ROLES:
        rows = read_rows(spec.task, role, spec.evaluation.slices if role == "validation" else ())
        digests[role] = rows_digest(rows)
        splits.append(dense.family.prepared(dense, rows))
    return splits, _described(spec, dense, origin, digests, private=private)


def _described(spec: PruneSpec, dense: TaskModel, origin: Path, rows: dict[str, str], *, private: bool) -> ReproductionReport:
    model = SourceReport(
        kind=_kind(spec.model),
        name=shown_name(spec.model),
        commit=commit_of(origin),
        sha256=model_digests(origin),
    )
    data = SourceReport(kind=_kind(spec.task.dataset), name=shown_name(spec.task.dataset), sha256=rows)
    return ReproductionReport(
        command=command_for(model, data),
        spec=shown_spec(spec) if private else spec.model_dump(mode="json"),
        model=model,
        data=data,
        machine=machine(dense.device),
    )


def _kind(reference: str) -> Literal["folder", "hub"]:
    return "folder" if is_local(reference) else "hub"
