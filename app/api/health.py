"""Liveness and readiness."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app import queue
from app.errors import Problem, ProblemDetails

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A sign of life, and what was looked at."""

    status: str = "ok"
    checks: dict[str, str] = {}


@router.get("/healthz", operation_id="getHealth")
def healthz() -> Health:
    """Answer as long as the process runs."""
    return Health()


@router.get("/readyz", operation_id="getReadiness", responses={503: {"model": ProblemDetails}})
def readyz(request: Request) -> Health:
    """Answer with 200 when jobs can be accepted and files served; a broker that is down delays jobs but loses none."""
    state = request.app.state
    required = {"database": _look(state.service.check_database), "store": _look(state.store.check)}
    checks = required | {"broker": _look(lambda: queue.check(state.celery))}
    if any(found != "ok" for found in required.values()):
        down = ", ".join(name for name, found in required.items() if found != "ok")
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", f"not ready: {down} cannot be used", headers={"Retry-After": "5"}
        )
    return Health(status="ok" if checks["broker"] == "ok" else "degraded", checks=checks)


def _look(check: Callable[[], Any]) -> str:
    try:
        check()
    except Exception as error:  # each client library has errors of its own; the answer is the same
        return type(error).__name__
    return "ok"
