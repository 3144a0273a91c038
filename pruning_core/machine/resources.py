"""Classifier of errors that report an exhausted resource: disk or memory. Torch-free.

Such errors come from the system, torch, safetensors, Arrow and databases. Each has error classes of its own, and often the
error is only the cause of another one. A retry or a larger machine may help: the request is never at fault.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence

from pruning_core.errors import OutOfMemory, PruningError, StorageFull

# Full disk, full quota, and a limit on the size of a file.
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MEMORY_FULL = frozenset({errno.ENOMEM})
# PostgreSQL's disk_full, https://www.postgresql.org/docs/current/errcodes-appendix.html
_DISK_FULL_STATE = "53100"
_DISK_FULL_TEXT = re.compile(
    "|".join(
        [
            *(re.escape(os.strerror(number)) for number in sorted(_DISK_FULL)),
            rf"\b(os error|[Ee]rrno) ({'|'.join(str(number) for number in sorted(_DISK_FULL))})\b",
            r"\bdisk is full\b",  # SQLite
        ]
    )
)
# Classes are matched by name, since torch must not be imported here: torch.OutOfMemoryError, and its names in older releases.
_MEMORY_CLASS = re.compile(r"\bOutOfMemoryError\b|\bMemoryError\b|\bArrowMemoryError\b")
_MEMORY_TEXT = re.compile(
    "|".join(
        [
            re.escape(os.strerror(errno.ENOMEM)),
            rf"\b(os error|[Ee]rrno) {errno.ENOMEM}\b",
            r"\b(CUDA|HIP|XPU|MPS)\b[\w :]{0,16}\bout of memory\b",
            r"DefaultCPUAllocator: (can't allocate memory|not enough memory)",  # torch
            r"\bcan't allocate memory\b",
            r"\bstd::bad_alloc\b",
            r"\bbad allocation\b",
            r"\bCU(BLAS|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED\b",
            r"\bFailed to allocate memory for requested buffer\b",  # onnxruntime
            r"\bmalloc of size \d+ failed\b",  # Arrow
        ]
    )
)


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, reports a full disk, a full quota or a limit on the size of a file."""
    return any(
        isinstance(own, StorageFull)
        or (isinstance(own, OSError) and own.errno in _DISK_FULL)
        or getattr(own, "sqlstate", None) == _DISK_FULL_STATE
        or (_speaks(own) and _DISK_FULL_TEXT.search(str(own)) is not None)
        for own in _chain(error)
    )


def memory_is_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, reports that the memory of the host or of a device ran out."""
    return any(
        isinstance(own, OutOfMemory | MemoryError)
        or (isinstance(own, OSError) and own.errno in _MEMORY_FULL)
        or any(_MEMORY_CLASS.fullmatch(kind.__name__) for kind in type(own).__mro__)
        or (_speaks(own) and _MEMORY_TEXT.search(str(own)) is not None)
        for own in _chain(error)
    )


def told_of(texts: Sequence[str]) -> type[OutOfMemory | StorageFull] | None:
    """Return the error class of the resource that another process ran out of, from its error texts; None if it ran out of none.

    Args:
        texts: The process's errors, each as ``class: message``.
    """
    if any(_MEMORY_CLASS.search(own.partition(":")[0]) or _MEMORY_TEXT.search(own) for own in texts):
        return OutOfMemory
    return StorageFull if any(_DISK_FULL_TEXT.search(own) for own in texts) else None


def raise_if_exhausted(error: BaseException, doing: str) -> None:
    """Raise the core's own error if a resource ran out; return if the error reports anything else.

    Callers turn errors of other libraries into errors about the request. They call this first.

    Args:
        error: The caught error.
        doing: The failed step, as a clause: "the model was loaded".

    Raises:
        OutOfMemory: Memory ran out.
        StorageFull: The disk is full.
    """
    if isinstance(error, OutOfMemory | StorageFull):
        raise error
    if memory_is_full(error):
        raise OutOfMemory(
            f"out of memory while {doing}; lower calibration.memory_mb, samples or batch_tokens, or take a machine with more"
        ) from error
    if disk_is_full(error):
        raise StorageFull(f"the disk is full, which showed while {doing}; make room") from error


def _speaks(error: BaseException) -> bool:
    """Return whether an error's text says what happened: ours may quote the request, the system's a path beside its number."""
    numbered = isinstance(error, OSError) and error.errno is not None
    return not isinstance(error, PruningError) and not numbered


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the members of error groups, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        own = waiting.pop()
        if id(own) in seen:
            continue
        seen.add(id(own))
        yield own
        if isinstance(own, BaseExceptionGroup):
            waiting.extend(own.exceptions)
        if own.__cause__ is not None:
            waiting.append(own.__cause__)
        elif own.__context__ is not None and not own.__suppress_context__:
            waiting.append(own.__context__)
