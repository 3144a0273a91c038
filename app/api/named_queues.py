"""Routes of the queues into which jobs come by what they need, for operators: they need the scope ``admin``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.api.deps import Admin, Rules, sent_json
from app.errors import ProblemDetails
from app.operations.schemas import NamedQueuesView, NamedQueueView, QueueRules

router = APIRouter(prefix="/v1/queues", tags=["queue"], responses={"default": {"model": ProblemDetails}})


@router.get("", operation_id="listQueues")
def list_queues(rules: Rules, _caller: Admin) -> NamedQueuesView:
    """List the queues that have jobs open or a limit, with their jobs that wait and run."""
    return NamedQueuesView(data=[NamedQueueView.of(queue) for queue in rules.queues()])


@router.put("/{queue}", operation_id="setQueue", dependencies=[Depends(sent_json)])
def set_queue(
    queue: Annotated[str, Path(min_length=1, max_length=200)], body: QueueRules, rules: Rules, caller: Admin
) -> NamedQueueView:
    """Set how many jobs of a queue run at once. It holds from the next claim on."""
    return NamedQueueView.of(rules.set_queue(queue, max_running=body.max_running or 0, caller=caller))
