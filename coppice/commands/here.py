"""What commands do that compute in this process: the core imported, its libraries quiet, progress shown, errors in words."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NoReturn

from coppice.console import ExitCode, fail, progress
from coppice.installation import DISTRIBUTION
from pruning_core.errors import OutOfMemory, PruningError, StorageFull
from pruning_core.machine.threads import keep_few_kernels, sleep_when_waiting
from pruning_core.report.progress import Progress


@contextlib.contextmanager
def importing_core() -> Generator[None]:
    """End the command where the core, imported in the context, lacks a library. Its threads are set before it is there."""
    sleep_when_waiting()
    keep_few_kernels()
    try:
        yield
    except ImportError as error:
        fail(f"pruning needs {error.name}, which is not installed: pip install '{DISTRIBUTION}[prune]'", ExitCode.BAD_INPUT)


@contextlib.contextmanager
def computing(refuse: Callable[[PruningError], NoReturn]) -> Generator[Callable[[Progress], None]]:
    """Show progress, by the context's value, and end the command where the core cannot go on.

    Args:
        refuse: Ends the command with the words for an error that the user can act on.
    """
    with quiet_libraries(), progress("load") as show:

        def tell(now: Progress) -> None:
            show(now.stage, now.fraction)

        try:
            with contextlib.redirect_stdout(sys.stderr):  # libraries may print, and stdout is for the result
                yield tell
        except (OutOfMemory, StorageFull) as error:
            fail(error.message, ExitCode.JOB_FAILED)
        except PruningError as error:
            refuse(error)


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
    """Say nothing of what the libraries say; what matters of it is in the report. Both are of the whole process."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def cache_folder() -> Path:
    """Return the user's cache folder, for measurements that later runs use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coppice"
