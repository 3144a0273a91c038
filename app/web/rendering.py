"""Pages: templates, the headers that fence them in, and errors for people (docs/decisions/0050)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, cast

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from app.errors import ProblemDetails, problem_of
from app.keys.records import Caller, Scope
from app.keys.roles import role_of
from app.web import formats
from pruning_core.report.also_words import set_words
from pruning_core.report.engine_words import conditions, engine_words
from pruning_core.report.latency_words import interval_of_speedup
from pruning_core.report.ledger_words import ledger_sentence
from pruning_core.report.quality_words import difference_words, floor_words

# A page may load only files of this server: no inline script or style, no frame, nothing from other hosts.
FENCE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
    "Vary": "Cookie",
}


def page(request: Request, template: str, values: Mapping[str, object], *, status: int = 200) -> HTMLResponse:
    """Render a page for whoever is asking."""
    caller: Caller | None = getattr(request.state, "caller", None)
    person = None if caller is None else caller.person
    common = {
        "path": request.url.path,
        "signed_in": caller is not None and bool(caller.key_id),
        "may_write": caller is not None and Scope.JOBS_WRITE in caller.scopes,
        "may_operate": caller is not None and Scope.ADMIN in caller.scopes,
        "tenant": "" if caller is None else caller.owner,
        "role": None if caller is None else role_of(caller.scopes),
        "person": "" if person is None else person.name,
        "own_tenants": () if person is None else person.tenants,
    }
    return HTMLResponse(_environment().get_template(template).render({**common, **values}), status_code=status)


class PageRoute(APIRoute):
    """A route for people: says errors as a page, and fences the page in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's own handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except Exception as error:
                response = problem_page(request, problem_of(request, error))
            response.headers.update(FENCE)
            return response

        return answer


def problem_page(request: Request, response: Response) -> Response:
    """Render a problem, given as the API's answer, as a page."""
    problem = ProblemDetails.model_validate_json(bytes(response.body))
    shown = page(request, "problem.html", {"problem": problem}, status=response.status_code)
    for name in ("Retry-After", "WWW-Authenticate", "Allow", "Connection"):
        if name in response.headers:
            shown.headers[name] = response.headers[name]
    return shown


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown: tuple[Callable[..., object], ...] = (
        formats.decimal,
        formats.percent,
        formats.times,
        formats.count,
        formats.size,
        formats.span,
        formats.ago,
        formats.clock,
        formats.until,
        formats.words,
        formats.model_name,
        formats.ratio,
        formats.verdict,
        formats.figure,
        formats.about,
    )
    filters = cast("dict[str, Callable[..., object]]", environment.filters)
    filters.update({show.__name__: show for show in shown})
    filters["engine_words"] = engine_words
    filters["engine_conditions"] = conditions
    filters["difference_words"] = difference_words
    filters["interval_of_speedup"] = interval_of_speedup
    filters["floor_words"] = floor_words
    filters["set_words"] = set_words
    filters["ledger_sentence"] = ledger_sentence
    environment.globals["asset"] = _asset
    return environment


@cache
def _asset(name: str) -> str:
    """Return the address of a static file. It changes with the content, so that no browser shows an old one."""
    content = files("app.web").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
