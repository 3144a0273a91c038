"""The states of a job and the only ways between them. Every guarded UPDATE is built on this table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Transition(StrEnum):
    """The changes of state of a job."""

    CLAIM = "claim"
    REQUEUE = "requeue"
    REQUEST_CANCEL = "request_cancel"
    CANCEL_QUEUED = "cancel_queued"
    CONFIRM_CANCEL = "confirm_cancel"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"


# A job in `cancelling` ends as cancelled unless it succeeds first: the worker may already have been committing, and then the
# result stands. An attempt that fails, crashes, is lost or is given back can leave `cancelling` only by CONFIRM_CANCEL
# (`LeaseRepository.confirm_cancelled`).
TRANSITIONS: Mapping[Transition, tuple[frozenset[JobStatus], JobStatus]] = {
    Transition.CLAIM: (frozenset({JobStatus.QUEUED}), JobStatus.RUNNING),
    Transition.REQUEUE: (frozenset({JobStatus.RUNNING}), JobStatus.QUEUED),
    Transition.REQUEST_CANCEL: (frozenset({JobStatus.RUNNING}), JobStatus.CANCELLING),
    Transition.CANCEL_QUEUED: (frozenset({JobStatus.QUEUED}), JobStatus.CANCELLED),
    Transition.CONFIRM_CANCEL: (frozenset({JobStatus.CANCELLING}), JobStatus.CANCELLED),
    Transition.SUCCEED: (frozenset({JobStatus.RUNNING, JobStatus.CANCELLING}), JobStatus.SUCCEEDED),
    Transition.FAIL: (frozenset({JobStatus.RUNNING}), JobStatus.FAILED),
    # The only transition out of a final state, and only the owner can ask for it.
    Transition.RETRY: (frozenset({JobStatus.FAILED}), JobStatus.QUEUED),
}

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
