"""Processes under a limit of memory that the kernel keeps: a control group (version 1) of its own.

What is cached of files does not end a process there, it is given back; what else is taken beyond the limit does.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_EVERY_S = 0.02


@dataclass(frozen=True)
class Limited:
    """How a command under a limit ended.

    ``anonymous`` is the most that was seen of memory that is not of files, in bytes, of all processes together: what files
    are cached in grows up to any limit.
    """

    status: int
    output: str
    errors: str
    anonymous: int


def can_limit() -> bool:
    """Whether this machine lets us make control groups of memory."""
    return os.access(_V1, os.W_OK) and (_V1 / "memory.limit_in_bytes").is_file()


def run_limited(command: Sequence[str], limit: int | None, *, environment: Mapping[str, str] | None = None) -> Limited:
    """Run a command, and all that it starts, in a new control group; without a limit it is only watched."""
    group = _V1 / f"coppice-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        if limit is not None:
            (group / "memory.limit_in_bytes").write_text(str(limit))
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            given = None if environment is None else {**os.environ, **environment}
            entering = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
            process = subprocess.Popen([*entering, *command], stdout=output, stderr=errors, env=given)
            most = 0
            while process.poll() is None:
                most = max(most, _anonymous(group))
                time.sleep(_EVERY_S)
            output.seek(0), errors.seek(0)
            return Limited(process.returncode, output.read(), errors.read(), most)
    finally:
        (group / "memory.force_empty").write_text("0")
        group.rmdir()


def _anonymous(group: Path) -> int:
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    return next(int(value) for name, value in lines if name == "total_rss")
