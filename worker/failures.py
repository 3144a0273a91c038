"""Errors of a job's process that are no `PruningError`: what another attempt may cure, and what it will not."""

from __future__ import annotations

from app.disk import is_disk_full
from pruning_core.errors import OutOfMemory, StorageFull
from pruning_core.machine.resources import memory_is_full
from worker.protocol import ChildError


def explain(error: Exception) -> ChildError:
    """Explain to people why a job failed. Memory and disk space may be there for another attempt; the rest is for the log."""
    if memory_is_full(error):
        message = "the job ran out of memory; lower calibration.samples, calibration.batch_tokens or latency.batch"
        return ChildError(code=OutOfMemory.code, message=message, transient=True)
    if is_disk_full(error):
        message = "the worker's disk is full; its operator has to make room"
        return ChildError(code=StorageFull.code, message=message, transient=True)
    return ChildError(code="internal", message="the job failed on an error of the server; its log says more")
