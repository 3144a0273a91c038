"""Routes of the queue, for operators: they need the scope ``admin``."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.deps import Admin, Queue
from app.errors import ProblemDetails
from app.jobs.control import QueueState
from app.operations.schemas import QueueControlView

router = APIRouter(prefix="/v1/queue", tags=["queue"], responses={"default": {"model": ProblemDetails}})


@router.get("", operation_id="getQueue")
def get_queue(queue: Queue, _caller: Admin) -> QueueControlView:
    """Read whether jobs are taken, and how many run and wait, of all tenants."""
    return QueueControlView.of(queue.read())


@router.post("/pause", operation_id="pauseQueue")
def pause_queue(queue: Queue, caller: Admin) -> QueueControlView:
    """Take no job any more. What runs goes on; submits are accepted and wait."""
    return QueueControlView.of(queue.set(QueueState.PAUSED, caller=caller))


@router.post("/drain", operation_id="drainQueue")
def drain_queue(queue: Queue, caller: Admin) -> QueueControlView:
    """Take no job any more, and say by `drained` when nothing runs: ask `GET /v1/queue` until then."""
    return QueueControlView.of(queue.set(QueueState.DRAINING, caller=caller))


@router.post("/resume", operation_id="resumeQueue")
def resume_queue(queue: Queue, caller: Admin) -> QueueControlView:
    """Take jobs again."""
    return QueueControlView.of(queue.set(QueueState.OPEN, caller=caller))
