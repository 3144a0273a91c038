"""The page that shows what lies in the folders that jobs may name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.api.deps import Writer
from app.inspection.browsing import listing
from app.web.rendering import PageRoute, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/browse")
def browse(
    request: Request,
    _caller: Writer,
    at: Annotated[str, Query(max_length=4096, pattern=r"^[^\x00]*$")] = "",
    field: Annotated[Literal["model", "data"], Query(alias="for")] = "model",
) -> Response:
    """Show a folder under the allowed roots, or these; ``for`` is the control of the form that a folder is looked for."""
    settings = request.app.state.settings
    found = listing(at, tuple(root.absolute() for root in settings.allowed_roots), settings.closed_folders)
    return page(request, "browse.html", {"found": found, "field": field})
