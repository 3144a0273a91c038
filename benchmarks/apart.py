"""Jobs in processes of their own, so that the peak memory is the job's alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.report.report import Report

_RUN = """
import json, sys
from pathlib import Path
from pruning_core.machine.environment import choose_device, peak_memory
from pruning_core.errors import PruningError
from pruning_core.checks.request import check_local_inputs
from pruning_core.spec import PruneSpec

found = {"submitted": False, "problem": None}
try:
    spec = PruneSpec.model_validate(json.loads(sys.argv[1]))
    check_local_inputs(spec)
    found["submitted"] = True
    from pruning_core.run.pipeline import run
    run(spec, Path(sys.argv[2]), device=sys.argv[3] or None, threads=int(sys.argv[4]) or None)
except PruningError as error:
    found["problem"] = f"{type(error).__name__}: {error}"
found["peak"] = peak_memory(choose_device(sys.argv[3] or None))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Done:
    """The outcome of a job.

    Attributes:
        report: The bundle's report; None if there is no bundle.
        problem: Why the job was refused or failed, or the last line of its crash; None if it succeeded.
        submitted: Whether the job passed the checks of a submit.
        peak: Peak bytes of the job's process.
        job_peak: Peak bytes of the job's process and the one that proves the bundle together, read 20 times a second.
    """

    report: Report | None
    problem: str | None
    submitted: bool
    peak: int
    job_peak: int


def run_apart(spec: dict[str, Any], out: Path, device: str = "", threads: int | None = None) -> Done:
    """Run a job in a process of its own, from its request to the proof of its bundle."""
    command = [sys.executable, "-c", _RUN, json.dumps(spec), str(out), device, str(threads or 0)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        job_peak = 0
        with subprocess.Popen(command, stdout=output, stderr=log) as job:
            while job.poll() is None:
                job_peak = max(job_peak, _resident(job.pid))
                time.sleep(0.05)
        output.seek(0)
        log.seek(0)
        said, complained = output.read(), log.read()
    if job.returncode:
        sys.stderr.write(complained)
        last = (complained.strip().splitlines() or ["killed"])[-1]
        return Done(None, f"crashed ({job.returncode}): {last}", True, 0, job_peak)
    found = json.loads(said.splitlines()[-1])
    path = out / "report.json"
    report = Report.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
    return Done(report, found["problem"], found["submitted"], found["peak"], job_peak)


def _resident(pid: int) -> int:
    """Return the resident bytes of a process and its descendants. Libraries that they share count twice."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        children = [task.joinpath("children").read_text(encoding="ascii") for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return 0  # the process has just ended
    return pages * 4096 + sum(_resident(int(child)) for text in children for child in text.split())
