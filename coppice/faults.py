"""The last resort of the command line: what no command foresaw is told in a sentence, and never by a traceback."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager

from coppice.console import ExitCode, err, escaped

DEBUG_VARIABLE = "COPPICE_DEBUG"


@contextmanager
def no_traceback() -> Generator[None]:
    """End the process with a sentence and an exit code where an error comes this far; COPPICE_DEBUG=1 shows where it arose.

    Where a terminal or a pipe cannot show a sign, a question mark stands for it: names of models and data are in any script.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        yield
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        message, code = _told(error)
        err.print(f"[bold red]error[/]: {escaped(message)}", highlight=False, soft_wrap=True)
        sys.exit(code)


def _told(error: Exception) -> tuple[str, ExitCode]:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}", ExitCode.BAD_INPUT
    said = (str(error).strip().splitlines() or [""])[0][:300]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    advice = f"Please report it with coppice --version, the command, and its output with {DEBUG_VARIABLE}=1"
    return f"a fault of Coppice's own, and none of yours ({what}). {advice}", ExitCode.FAULT
