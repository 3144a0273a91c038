"""The child's side of the protocol: confinement first, then the work, then how it ended. Torch-free."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from app.sandbox.ties import be_first_to_go, die_with_parent
from pruning_core.errors import OutOfMemory, PruningError, StorageFull
from pruning_core.report.progress import Progress
from worker.failures import explain
from worker.protocol import LONGEST_MESSAGE, ChildError, ChildExit, Scratch
from worker.sandbox.confinement import Confinement

# Tells the supervisor where the work is.
Tell = Callable[[Progress], None]


class Orphaned(Exception):
    """The supervisor is gone: nobody would stop this process."""


def do(arguments: Sequence[str], work: Callable[[Scratch, int, Tell], None]) -> int:
    """Do a child's work, and write down why it failed, if it did.

    Args:
        arguments: The scratch folder, the descriptor of the progress pipe, and the pid of the supervisor.
        work: The work, told of the scratch folder, the pid and the pipe. It calls `confine` before it reads anything hostile.

    Returns:
        The exit code.
    """
    scratch, progress_fd, parent = Scratch(Path(arguments[0])), int(arguments[1]), int(arguments[2])
    with os.fdopen(progress_fd, "w", encoding="utf-8", buffering=1) as pipe:

        def tell(progress: Progress) -> None:
            pipe.write(progress.model_dump_json() + "\n")

        try:
            work(scratch, parent, tell)
        except Orphaned:
            return 1
        except PruningError as error:
            transient = isinstance(error, OutOfMemory | StorageFull)
            message = error.message[:LONGEST_MESSAGE]
            _write_error(scratch, ChildError(code=error.code, message=message, param=error.param, transient=transient))
        except Exception as error:  # any other error is our own fault; its details go to the log alone
            traceback.print_exc()
            _write_error(scratch, explain(error))
        else:
            return ChildExit.SUCCEEDED
    return ChildExit.FAILED


def confine(confinement: Confinement | None, parent: int) -> None:
    """Confine this process for ever, and tie its life to the supervisor's.

    Args:
        confinement: Its limits; None: none.
        parent: The supervisor's pid.

    Raises:
        Orphaned: The supervisor is gone.
        OSError: The kernel refused a limit.
    """
    be_first_to_go()
    if confinement is not None:
        confinement.enter()
    # After the confinement, since becoming another user unties it. In namespaces, bubblewrap is the parent and sees to it.
    is_wrapped = confinement is not None and confinement.namespaces
    if not is_wrapped and not die_with_parent(parent, signal.SIGKILL):
        raise Orphaned


def _write_error(scratch: Scratch, error: ChildError) -> None:
    scratch.error.write_text(error.model_dump_json(), encoding="utf-8")
