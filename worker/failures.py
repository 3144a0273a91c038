"""Errors that are no `PruningError`, of a job's process and of its worker: what another attempt may cure, and what not."""

from __future__ import annotations

from app.disk import is_disk_full
from app.jobs.records import JobError
from app.storage import StoreUnavailable
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


def failure_of(error: Exception) -> JobError:
    """Explain why an attempt ended that was no fault of the job's process."""
    if is_disk_full(error):
        return JobError("storage_full", "the worker's disk or the artifact store is full; its operator has to make room")
    if isinstance(error, StoreUnavailable):
        return JobError("storage_unavailable", "the artifact store could not be reached for too long")
    return JobError("worker_failed", "the worker could not keep the job's files; its operator finds the reason in the log")
