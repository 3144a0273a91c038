"""What all statistics of a run depend on: the name under which a later run finds them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

from pruning_core.kept.folder import KeptFolder
from pruning_core.kept.statistics import Statistics
from pruning_core.machine.environment import versions
from pruning_core.report.adapter import AdapterReport
from pruning_core.report.reproduction import ReproductionReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

# Where data lies decides nothing: its rows have digests.
_PLACES = {"name", "dataset", "config", "revision", "train_split", "validation_split", "validation_share", "metric"}


def statistics_of(
    spec: PruneSpec,
    dense: TaskModel,
    again: ReproductionReport,
    folder: KeptFolder | None,
    *,
    tokens: Sequence[int] | None = None,
    adapter: AdapterReport | None = None,
) -> Statistics:
    """Return the statistics of a dense model on the data of a run.

    Args:
        spec: The request, with all columns named.
        dense: The dense model.
        again: The digests of model and rows.
        folder: Where statistics are kept; None: nowhere.
        adapter: The adapter that was merged into the model; None where there is none.
        tokens: The ids that stay of the model's vocabulary; None: all.
    """
    libraries = versions()
    return Statistics(
        {
            "model": again.model.sha256,
            "rows": again.data.sha256,
            "task": spec.task.model_dump(mode="json", exclude=_PLACES),
            "calibration": spec.calibration.model_dump(mode="json", exclude={"memory_mb"}),
            "device": dense.device.type,
            "paged": dense.pages is not None,
            # Runs with the whole vocabulary are named as they were before there were others.
            **({} if tokens is None else {"tokens": sha256(array("q", tokens).tobytes()).hexdigest()}),
            **({} if adapter is None else {"adapter": adapter.sha256}),
            "versions": {name: libraries[name] for name in ("coppice", "torch", "transformers")},
        },
        folder,
        [] if folder is None else list(folder.notes),
    )
