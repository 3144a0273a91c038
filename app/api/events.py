"""The event log of a job, as a list or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.deps import Owner, Service, Watcher
from app.api.jobs import JobId
from app.ending import Ending
from app.errors import ProblemDetails
from app.jobs.schemas import EventList, EventView, OutputList, OutputView
from app.jobs.watching import JobWatcher

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={"default": {"model": ProblemDetails}})

_LOOK_AFTER_CLIENT_S = 15
_PAGE = 200
_GRACE_S = 2
_LARGEST_ID = 2**63 - 1
_COME_BACK_MS = 1000


@router.get("/{job_id}/events", operation_id="listEvents", response_model=EventList)
async def list_events(
    job_id: JobId,
    request: Request,
    service: Service,
    watcher: Watcher,
    owner: Owner,
    after: Annotated[int, Query(ge=0, le=_LARGEST_ID, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    last_event_id: Annotated[str | None, Header(description="Where a broken stream goes on.")] = None,
) -> Response | EventList:
    """Read the events, oldest first; with ``Accept: text/event-stream`` a stream that ends when the job does."""
    start = after
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        start = max(start, min(int(last_event_id[:19]), _LARGEST_ID))
    if "text/event-stream" in accept:
        known = await run_in_threadpool(service.get, job_id, owner=owner)  # an unknown job is a problem, not an empty stream
        stream = _stream(request, watcher, known.job.id, start)
        # The library ends streams itself when the server is to end; the grace is for what the stream says of that.
        return EventSourceResponse(stream, ping=15, shutdown_event=anyio.Event(), shutdown_grace_period=_GRACE_S)
    events = await run_in_threadpool(service.events, job_id, owner=owner, after=start, limit=limit + 1)
    more = len(events) > limit
    page = [EventView.of(event) for event in events[:limit]]
    return EventList(data=page, has_more=more, next=page[-1].id if more else None)


@router.get("/{job_id}/output", operation_id="getOutput")
def get_output(job_id: JobId, service: Service, owner: Owner) -> OutputList:
    """Read what the processes of a job's last attempts have printed, and when their stages began."""
    found = service.outputs.of(job_id, owner=owner)
    return OutputList(data=[OutputView(attempt=own.attempt, text=own.text) for own in found])


async def _stream(request: Request, watcher: JobWatcher, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Replay from the database, then follow it: a client that reconnects with its last id misses nothing."""
    ending: Ending = request.app.state.ending
    while not await request.is_disconnected():
        if ending.has_begun:
            yield ServerSentEvent(comment="the service restarts; go on with Last-Event-ID", retry=_COME_BACK_MS)
            return
        found = await watcher.follow(job_id, after=after, limit=_PAGE)
        if found.version is None:
            yield ServerSentEvent(comment="the job was deleted")
            return
        for event in found.events:
            after = event.id
            yield ServerSentEvent(id=str(event.id), event=str(event.type), data=EventView.of(event).model_dump_json())
        # The job's state decides and not an event: a job that was tried again has several ends in its log.
        if not found.events and found.has_ended:
            return
        while not found.events and not await watcher.changed(job_id, found.version, within_s=_LOOK_AFTER_CLIENT_S):
            if await request.is_disconnected():
                return
