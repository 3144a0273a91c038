"""A job's process without torch, for tests that need many jobs or one of a certain length: ``python -m tests.faults.sleeper``.

It speaks the runner's protocol, confines itself as the runner does, sleeps for the spec's ``seed`` in milliseconds,
and leaves a bundle. With the seed `REAL` it becomes the real runner. Only `tests.faults.entry` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from tests.unit.app.sample import REPORT
from worker import inside
from worker.protocol import ChildRequest, Scratch

REAL = 10**6
FINISHED = "finished.txt"  # when the work was done, by this host's clock
FILES = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "deep/er/card.md": b"# card"}


def main(arguments: list[str]) -> int:
    scratch, progress_fd, parent = Scratch(Path(arguments[0])), int(arguments[1]), int(arguments[2])
    request = ChildRequest.model_validate_json(scratch.request.read_text())
    if request.spec.seed == REAL:
        os.set_inheritable(progress_fd, True)
        os.execv(sys.executable, [sys.executable, "-m", "worker.runner", *arguments])
    inside.confine(request.confinement, parent)
    with os.fdopen(progress_fd, "w", buffering=1) as pipe:
        pipe.write(json.dumps({"stage": "score", "step": 0, "total": 1}) + "\n")
        time.sleep(request.spec.seed / 1000)
        pipe.write(json.dumps({"stage": "bundle", "step": 1, "total": 1}) + "\n")
    for name, content in FILES.items():
        path = scratch.bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (scratch.bundle / FINISHED).write_text(str(time.time()))
    scratch.report.write_text(json.dumps(REPORT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
