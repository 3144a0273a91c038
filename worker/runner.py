"""The child process of one job: the only place of the service where torch is imported.

Started as ``python -m worker.runner SCRATCH PROGRESS_FD PARENT_PID``. Whatever libraries print goes to the log; progress has a
pipe of its own.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pruning_core.errors import OutOfMemory, PruningError, Rejected, StorageFull
from pruning_core.machine.threads import keep_few_kernels, sleep_when_waiting
from pruning_core.report.progress import Progress
from worker.failures import explain
from worker.process import be_first_to_go, die_with_parent
from worker.protocol import ChildError, ChildExit, ChildRequest, Scratch


def main(arguments: list[str]) -> int:
    """Run the job that stands in the scratch folder."""
    scratch, progress_fd, parent = Scratch(Path(arguments[0])), int(arguments[1]), int(arguments[2])
    if not die_with_parent(parent, signal.SIGKILL):
        return 1
    be_first_to_go()
    with os.fdopen(progress_fd, "w", encoding="utf-8", buffering=1) as pipe:
        try:
            _run(scratch, pipe.write)
        except PruningError as error:
            transient = isinstance(error, OutOfMemory | StorageFull)
            _write_error(scratch, ChildError(code=error.code, message=error.message, param=error.param, transient=transient))
        except Exception as error:  # any other error is our own fault; its details go to the log alone
            traceback.print_exc()
            _write_error(scratch, explain(error))
        else:
            return ChildExit.SUCCEEDED
    return ChildExit.FAILED


def _run(scratch: Scratch, write: Callable[[str], object]) -> None:
    sleep_when_waiting()
    keep_few_kernels()
    from pruning_core.run.pipeline import run

    request = ChildRequest.model_validate_json(scratch.request.read_text(encoding="utf-8"))
    if request.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (request.memory_bytes, hard))

    def tell(progress: Progress) -> None:
        write(progress.model_dump_json() + "\n")

    try:
        report = run(
            request.spec,
            scratch.bundle,
            device=request.device,
            threads=request.threads,
            cache=request.cache,
            scratch=scratch.work,
            on_progress=tell,
        )
    except Rejected as rejected:
        if rejected.report is not None:  # the bundle is then the best candidate, with this report
            scratch.report.write_text(rejected.report.model_dump_json(), encoding="utf-8")
        raise
    scratch.report.write_text(report.model_dump_json(), encoding="utf-8")


def _write_error(scratch: Scratch, error: ChildError) -> None:
    scratch.error.write_text(error.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
