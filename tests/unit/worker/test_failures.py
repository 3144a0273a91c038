"""What a job's process says of an error that nobody has foreseen."""

from __future__ import annotations

import errno
import os

import pytest

from worker.failures import explain

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "oom"),
        (RuntimeError(ALLOCATOR), "oom"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "oom"),
        (RuntimeError(f"mmap: {os.strerror(errno.ENOMEM)}"), "oom"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "storage_full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "storage_full"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "storage_full"),
        (RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"), "storage_full"),
    ],
)
def test_what_another_attempt_may_cure(error: Exception, code: str) -> None:
    explained = explain(error)
    assert (explained.code, explained.transient) == (code, True)


@pytest.mark.parametrize(
    "error", [KeyError("secret"), OSError(errno.EACCES, "secret"), ValueError("secret"), OSError("secret")]
)
def test_what_is_ours_is_for_the_log_alone(error: Exception) -> None:
    explained = explain(error)
    assert (explained.code, explained.transient) == ("internal", False)
    assert "secret" not in explained.message
