"""The child process of one job: the only place of the service where torch is imported.

Started as ``python -m worker.runner SCRATCH PROGRESS_FD PARENT_PID``. Whatever libraries print goes to the log; progress has a
pipe of its own.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from pruning_core.errors import DatasetInvalid, ModelUnreadable, Rejected
from pruning_core.files.paths import is_local
from pruning_core.machine.threads import keep_few_kernels, sleep_when_waiting
from pruning_core.spec.data_places import data_places
from pruning_core.spec.prune import PruneSpec
from worker import inside
from worker.inside import Tell
from worker.protocol import ChildRequest, Scratch


def main(arguments: list[str]) -> int:
    """Run the job that stands in the scratch folder."""
    return inside.do(arguments, _run)


def _run(scratch: Scratch, parent: int, tell: Tell) -> None:
    request = ChildRequest.model_validate_json(scratch.request.read_text(encoding="utf-8"))
    inside.confine(request.confinement, parent)
    _check_readable(request.spec)
    if request.hub_cache is not None:  # the supervisor has fetched what the job needs
        os.environ |= {"HF_HUB_CACHE": str(request.hub_cache), "HF_HUB_OFFLINE": "1"}
    if request.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (request.memory_bytes, hard))
    sleep_when_waiting()
    keep_few_kernels()
    if request.calibrates:
        _calibrate(request, scratch, tell)
        return
    from pruning_core.kept.folder import KeptFolder
    from pruning_core.run.pipeline import run

    kept = request.statistics

    try:
        report = run(
            request.spec,
            scratch.bundle,
            device=request.device,
            threads=request.threads,
            cache=request.cache,
            statistics=None if kept is None else KeptFolder(kept, request.statistics_bytes, notes=request.notes),
            scratch=scratch.work,
            engines=request.engines,
            model_name=request.model_name,
            name=request.name,
            on_progress=tell,
        )
    except Rejected as rejected:
        if rejected.report is not None:  # the bundle is then the best candidate, with this report
            scratch.report.write_text(rejected.report.model_dump_json(), encoding="utf-8")
        raise
    scratch.report.write_text(report.model_dump_json(), encoding="utf-8")


def _calibrate(request: ChildRequest, scratch: Scratch, tell: Tell) -> None:
    """Gather what is known of the dense model. A later attempt on this host goes on from the pieces of this one."""
    from pruning_core.kept.folder import KeptFolder
    from pruning_core.kept.room import SUFFIX
    from pruning_core.run.pipeline import calibrate

    work = scratch.work / "statistics"
    found = calibrate(
        request.spec,
        KeptFolder(work, source=request.statistics),
        device=request.device,
        threads=request.threads,
        cache=request.cache,
        engines=request.engines,
        on_progress=tell,
    )
    scratch.bundle.mkdir()
    for piece in sorted(work.glob(f"*{SUFFIX}")):
        if request.statistics is not None:  # jobs on this host that do not name the calibration start from there, too
            KeptFolder(request.statistics, request.statistics_bytes).take(piece)
        piece.rename(scratch.bundle / piece.name)
    scratch.report.write_text(found.model_dump_json(), encoding="utf-8")


def _check_readable(spec: PruneSpec) -> None:
    """Refuse folders that this process may not read, before a library calls them corrupt."""
    advice = "this job's process, which has a user of its own, may not read the folder; its operator must open it to that user"
    if is_local(spec.model) and not _may_read(spec.model):
        raise ModelUnreadable(advice, param="model")
    for own in data_places(spec):
        if is_local(own.reference) and not _may_read(own.reference):
            raise DatasetInvalid(advice, param=own.param)


def _may_read(folder: str) -> bool:
    path = Path(folder).expanduser()
    try:
        return not path.exists() or os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
    except PermissionError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
