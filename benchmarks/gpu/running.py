"""Running the parts, each in a process and a time of its own, so that none takes another's rows with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.needs import ROOT, SITE
from benchmarks.gpu.parts import Figure, Part, Setting

Row = dict[str, Figure]
_WHAT = "what"


@dataclass(frozen=True)
class Outcome:
    """What came of a part.

    Attributes:
        name: Name of the part.
        status: ``done``, ``failed``, ``out of time``, or ``left out`` for want of time.
        seconds: How long it took.
        rows: Its rows, those before it failed as well.
        problem: Why it failed; the last line of its output.
    """

    name: str
    status: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list[Row])
    problem: str | None = None


def write_row(place: Path, what: str, figures: Mapping[str, Figure]) -> None:
    """Append a row to a file of rows."""
    with place.open("a", encoding="utf-8") as file:
        file.write(json.dumps({_WHAT: what, **figures}) + "\n")


def read_rows(place: Path) -> list[Row]:
    """Read the rows of a file; the last line may be half of one, where the part was ended."""
    found: list[Row] = []
    for line in place.read_text(encoding="utf-8").splitlines() if place.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def run_here(part: Part, setting: Setting, rows: Path) -> Outcome:
    """Run a part in this process, whatever it raises; its time is not limited."""
    began = time.monotonic()
    try:
        part.run(setting, lambda what, **figures: write_row(rows, what, figures))
    except Exception as error:  # the other parts are to run
        traceback.print_exc()
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        return Outcome(part.name, "failed", time.monotonic() - began, read_rows(rows), problem)
    return Outcome(part.name, "done", time.monotonic() - began, read_rows(rows))


def run_apart(name: str, command: Sequence[str], seconds: float, rows: Path, log: Path) -> Outcome:
    """Run a part's command in a process of its own, and end it with all that it started once its time is up.

    Args:
        name: Name of the part.
        command: The command; it appends its rows to ``rows``.
        seconds: Its time.
        rows: File of its rows.
        log: File that its output is appended to.
    """
    began = time.monotonic()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"), str(SITE))))
    start = log.stat().st_size if log.is_file() else 0
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    taken, found = time.monotonic() - began, read_rows(rows)
    if code is None:
        return Outcome(name, "out of time", taken, found, f"it was ended after {seconds:.0f} s")
    return Outcome(name, "done", taken, found) if code == 0 else Outcome(name, "failed", taken, found, _last_line(log, start))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a part, if anything of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def command_of(part: Part, *, dry: bool, rows: Path) -> list[str]:
    """Return the command that runs one part."""
    return [sys.executable, "-m", "benchmarks.gpu", "--part", part.name, "--rows", str(rows), *(["--dry-run"] if dry else [])]


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
