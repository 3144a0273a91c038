"""Pruning in this process, without a server: ``from coppice.local import prune, calibrate``, for notebooks and scripts.

It runs the pipeline of the service and of ``coppice run``, and gives the same report. It needs the extra ``prune``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coppice.errors import CoppiceError
from coppice.installation import DISTRIBUTION
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.report.statistics import StatisticsReport
from pruning_core.spec.prune import PruneSpec

OnProgress = Callable[[Progress], None]


class Cancelled(CoppiceError):
    """The caller has cancelled the run; nothing of a bundle is left."""


def prune(
    spec: PruneSpec | Mapping[str, Any],
    out: Path | str,
    *,
    statistics: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Prune a model and write its bundle.

    Example::

        spec = {"model": "./minilm", "task": "glue/sst2", "data": "./sst2", "sparsity": 0.5}
        report = prune(spec, "./bundle", statistics="./kept")

    Args:
        spec: The request: the body of a job, as JSON or validated.
        out: Folder of the bundle; must not exist, or be empty. It appears whole, or not at all.
        statistics: Folder of what is known of dense models. What an earlier call has kept there is not gathered again, and the
            weights are the same as without it. None: keep nothing.
        device: cpu, cuda or cuda:1; None: a GPU if there is one.
        threads: CPU threads; None: torch's default.
        on_progress: Called at every step, with the stage and the share of the whole.
        cancelled: Asked at every step; once it is true, the run ends.

    Returns:
        The report, which is also in the bundle.

    Raises:
        ValidationError: The spec is invalid; pydantic's error says what is wrong where.
        PruningError: It cannot be done; the error names the field and says what would be right. A `Rejected` means that a
            bundle was written, and misses what was asked for; the error carries the report.
        Cancelled: The caller has cancelled it.
        CoppiceError: The extra ``prune`` is not installed.
    """
    try:
        from pruning_core.kept.folder import KeptFolder
        from pruning_core.run.pipeline import run
    except ImportError as error:
        raise _missing(error) from error
    return run(
        _spec_of(spec),
        Path(out),
        device=device,
        threads=threads,
        statistics=None if statistics is None else KeptFolder(Path(statistics)),
        on_progress=_telling(on_progress, cancelled),
    )


def calibrate(
    spec: PruneSpec | Mapping[str, Any],
    statistics: Path | str,
    *,
    device: str | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> StatisticsReport:
    """Find out about a dense model what no target changes, and keep it for calls of `prune`.

    Args:
        spec: The request of a run. Its targets, layout and formats are of no account.
        statistics: Folder in which to keep it.
        device: As in `prune`.
        threads: As in `prune`; with another number the last bits differ.
        on_progress: As in `prune`.
        cancelled: As in `prune`.

    Returns:
        What was there already, and what was gathered.

    Raises:
        ValidationError, PruningError, Cancelled, CoppiceError: As in `prune`.
    """
    try:
        from pruning_core.kept.folder import KeptFolder
        from pruning_core.run.pipeline import calibrate as gather
    except ImportError as error:
        raise _missing(error) from error
    told = _telling(on_progress, cancelled)
    return gather(_spec_of(spec), KeptFolder(Path(statistics)), device=device, threads=threads, on_progress=told)


def _spec_of(spec: PruneSpec | Mapping[str, Any]) -> PruneSpec:
    return spec if isinstance(spec, PruneSpec) else PruneSpec.model_validate(spec)


def _telling(on_progress: OnProgress | None, cancelled: Callable[[], bool] | None) -> OnProgress:
    def tell(now: Progress) -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("the run was cancelled")
        if on_progress is not None:
            on_progress(now)

    return tell


def _missing(error: ImportError) -> CoppiceError:
    return CoppiceError(f"pruning needs {error.name}, which is not installed: pip install '{DISTRIBUTION}[prune]'")
