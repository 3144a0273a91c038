"""Liveness and readiness."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.datastructures import State

from app import queue
from app.errors import Problem, ProblemDetails
from app.logs import first_line

router = APIRouter(tags=["health"])

_REQUIRED = frozenset({"database", "store"})  # without a broker jobs are only later, without a provider keys still count

_log = structlog.get_logger(__name__)


class Health(BaseModel):
    """A sign of life, and what was looked at."""

    status: str = "ok"
    checks: dict[str, str] = {}


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> Health:
    """Answer as long as the process runs, though all its threads are taken: who asks may end it."""
    return Health()


@router.get("/readyz", operation_id="getReadiness", responses={503: {"model": ProblemDetails}})
def readyz(request: Request) -> Health:
    """Answer with 200 when jobs can be accepted and files served.

    A broker that is down delays jobs but loses none, and without the provider of sign-ins keys go on to count: `degraded`.
    """
    checks = {name: _look(check)[0] for name, check in _checks(request.app.state).items()}
    down = ", ".join(name for name, found in checks.items() if found != "ok" and name in _REQUIRED)
    if down:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", f"not ready: {down} cannot be used", headers={"Retry-After": "5"}
        )
    return Health(status="ok" if all(found == "ok" for found in checks.values()) else "degraded", checks=checks)


def report_unavailable(state: State) -> None:
    """Write into the log what cannot be reached, and why: the answers to clients do not say."""

    def check_database() -> None:
        state.service.check_database()
        if (wrong := state.database.room_for(state.settings.connections_in_all)) is not None:
            _log.error("start.connections", reason=wrong)

    # One look for both questions: between two of them the database may go, and this thread with it.
    for name, check in (_checks(state) | {"database": check_database}).items():
        found, reason = _look(check)
        if found != "ok":
            _log.error("start.unavailable", part=name, error=found, reason=reason)


def _checks(state: State) -> dict[str, Callable[[], Any]]:
    checks: dict[str, Callable[[], Any]] = {
        "database": state.service.check_database,
        "store": state.store.check,
        "broker": lambda: queue.check(state.celery),
    }
    return checks if state.people is None else checks | {"sign_in": state.people.check}


def _look(check: Callable[[], Any]) -> tuple[str, str]:
    try:
        check()
    except Exception as error:  # each client library has errors of its own; the answer is the same
        return type(error).__name__, first_line(error)
    return "ok", ""
