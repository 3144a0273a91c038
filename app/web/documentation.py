"""The documentation at ``/docs``, as ``make docs`` builds it into this package, and at ``/docs/api`` the browser of the API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from app.web.rendering import PageRoute, page

SITE = Path(__file__).parent / "site"
# Beside the site's pages: the hashes of the scripts that stand within them.
INLINE_SCRIPTS = "inline-scripts.json"
# The browser of the API: our page, and Swagger UI from the package that ships it.
BROWSER = ("app.web", "browser")
SWAGGER = ("fastapi_offline", "static")
_PREFIX = "/docs"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(f"{_PREFIX}/", response_class=HTMLResponse)
@router.get(f"{_PREFIX}/index.html", response_class=HTMLResponse)
def not_built(request: Request) -> HTMLResponse:
    """Say where the documentation is, where it was not built."""
    return page(request, "documentation.html", {})


def install_documentation(app: FastAPI, site: Path = SITE) -> None:
    """Serve the site, or the page that says how to build it; and the browser of the API in any case.

    The contract has a route beside the browser's files, which must stand before them (`app.api.contract`).
    """
    app.mount(f"{_PREFIX}/api", _Fenced(packages=[BROWSER, SWAGGER]), name="api-browser")
    if (site / INLINE_SCRIPTS).is_file():
        scripts: list[str] = json.loads((site / INLINE_SCRIPTS).read_text(encoding="utf-8"))
        app.mount(_PREFIX, _Fenced(directory=site, scripts=scripts), name="documentation")
    else:
        app.include_router(router)


class _Fenced(StaticFiles):
    """Static pages that load nothing from elsewhere and run no script but their own.

    Args:
        directory: Folder of the pages.
        packages: Or packages that have them, and folders in these.
        scripts: Hashes of the scripts that stand within pages.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        packages: Sequence[tuple[str, str]] = (),
        scripts: Sequence[str] = (),
    ) -> None:
        super().__init__(directory=directory, packages=list(packages), html=True)
        allowed = " ".join(["'self'", *(f"'sha256-{one}'" for one in scripts)])
        # Styles within a page do no harm where nothing of a stranger's stands in it; themes and Swagger UI set some.
        self._headers = {
            "Content-Security-Policy": f"default-src 'none'; script-src {allowed}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer as Starlette does, fenced in."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
