"""Processes under a limit of memory that the kernel keeps: a control group (version 1) of its own.

What is cached of files does not end a process there, it is given back; what else is taken beyond the limit does.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Limited:
    """How a process under a limit ended: its exit status, what it printed, and the most that the group has ever held."""

    status: int
    output: str
    errors: str
    peak: int


def can_limit() -> bool:
    """Whether this machine lets us make control groups of memory."""
    return os.access(_V1, os.W_OK) and (_V1 / "memory.limit_in_bytes").is_file()


def run_limited(command: Sequence[str], limit: int, *, timeout: float = 1800) -> Limited:
    """Run a command, and all that it starts, in a new control group."""
    group = _V1 / f"coppice-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, preexec_fn=_entering(group)
        )
        peak = int((group / "memory.max_usage_in_bytes").read_text())
        return Limited(done.returncode, done.stdout, done.stderr, peak)
    finally:
        (group / "memory.force_empty").write_text("0")
        group.rmdir()


def _entering(group: Path) -> Callable[[], None]:
    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    return enter
