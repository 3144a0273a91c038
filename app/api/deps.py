"""What routes depend on: the service of this application, and who is asking."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Request

from app.errors import Problem
from app.jobs.service import JobService


def _service(request: Request) -> JobService:
    return cast("JobService", request.app.state.service)


def _owner() -> str:
    """Authentication is off in this profile: everything belongs to one owner without a name."""
    return ""


def require_json(request: Request) -> None:
    """Refuse bodies that are declared to be something else than JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send the body as Content-Type: application/json"
        )


Service = Annotated[JobService, Depends(_service)]
Owner = Annotated[str, Depends(_owner)]
