"""Problems: every error of the API is RFC 9457 ``application/problem+json``, and none echoes input, paths or traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.addresses import nearest_address
from app.db import OUTAGES
from app.disk import is_disk_full
from app.logs import first_line
from app.refusals import Busy, Conflict, NoRoom, NotFound, QuotaExceeded, Refused, RequestError, TooLarge
from app.storage import StoreUnavailable
from pruning_core.spec.messages import message_of, without_consequences

_log = structlog.get_logger(__name__)

_RETRY_AFTER_S = "5"
# Complete: a test compares it with the subclasses of RequestError.
STATUSES: Mapping[type[RequestError], HTTPStatus] = {
    Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NoRoom: HTTPStatus.INSUFFICIENT_STORAGE,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
}
_PASSING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
# What is said of one request: a client that sees a hundred errors has enough, and a name of a megabyte is no name.
_MOST_ERRORS = 100
_LONGEST_NAME = 200
_LONGEST_MESSAGE = 1000
# What stands for a part of the full spec in what clients send.
_SHORTHANDS = {("task", "dataset"): "data", ("target",): "sparsity"}
# Beginnings of messages that need the name of the field in front.
_WITHOUT_SUBJECT = ("must ", "is ", "may ")


class FieldError(BaseModel):
    """An error in one field: a JSON pointer into the body (or a parameter's name), and a sentence on what is wrong."""

    pointer: str
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457. ``type`` stays ``about:blank``; ``code`` is what programs match on."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError] = []


class Problem(Exception):
    """An error on its way to the client."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def problem_response(
    instance: str,
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Render a problem."""
    body = ProblemDetails(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, code=code, errors=list(errors)
    )
    return JSONResponse(
        body.model_dump(), status_code=status, media_type="application/problem+json", headers=dict(headers or {})
    )


def internal_problem(instance: str, error: Exception) -> JSONResponse:
    """Log an error of our own, and answer without its details."""
    _log.error("request.failed", path=instance, exc_info=error)
    detail = "something went wrong on the server; its log has the details under the X-Request-Id of this answer"
    return problem_response(instance, 500, "internal", detail)


def install_handlers(app: FastAPI) -> None:
    """Turn the exceptions that have a meaning in HTTP into problems; `internal_problem` answers for the rest."""
    for kind, handler in _handlers():
        app.add_exception_handler(kind, handler)


def problem_of(request: Request, error: Exception) -> JSONResponse:
    """Answer for an error as the API would; pages make of it what people read."""
    handler = next((handler for kind, handler in _handlers() if isinstance(error, kind)), None)
    return internal_problem(request.url.path, error) if handler is None else handler(request, error)


def _handlers() -> list[tuple[type[Exception], Callable[[Request, Exception], JSONResponse]]]:
    return [
        (Problem, _on_problem),
        (RequestError, _on_request_error),
        (RequestValidationError, _on_validation),
        (HTTPException, _on_http),
        *((unavailable, _on_database_down) for unavailable in OUTAGES),
        (StoreUnavailable, _on_store_down),
        (OSError, _on_os_error),
    ]


def invalid(error: ValidationError, body: object, model: type[BaseModel]) -> Problem:
    """Return the problem of a body of some model that was not read by FastAPI."""
    errors = field_errors(error, body, model)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", _together(errors), errors=errors)


def field_errors(error: ValidationError, body: object, model: type[BaseModel]) -> list[FieldError]:
    """Describe what is wrong with the fields of a body of some model that was not read by FastAPI."""
    return [
        _field_error({**item, "loc": ("body", *item["loc"])}, body, model)
        for item in without_consequences(error.errors())[:_MOST_ERRORS]
    ]


def _on_problem(request: Request, error: Exception) -> JSONResponse:
    problem = cast("Problem", error)
    return problem_response(
        request.url.path, problem.status, problem.code, problem.detail, errors=problem.errors, headers=problem.headers
    )


def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    failure = cast("RequestError", error)
    status = STATUSES[type(failure)]
    errors = refusal_errors(failure, getattr(request.state, "sent", None))
    headers = {"Retry-After": _RETRY_AFTER_S} if status in _PASSING else None
    sentences = [failure.message] if len(errors) < 2 else [f"{error.pointer[1:]}: {error.message}" for error in errors]
    return problem_response(request.url.path, status, failure.code, "; ".join(sentences), errors=errors, headers=headers)


def refusal_errors(failure: RequestError, body: object) -> list[FieldError]:
    """Describe what a refusal, and the others that it carries, are about; one that is about no field is left out."""
    found: list[FieldError] = []
    for one in _all_of(failure):
        if one.pointer is not None:
            pointer = _pointer_into(body, one.pointer) if one.pointer.startswith("/") else one.pointer
            found.append(FieldError(pointer=pointer, message=one.message))
    return found


def _all_of(failure: RequestError) -> tuple[RequestError, ...]:
    return (failure, *(failure.others if isinstance(failure, Refused) else ()))


def _on_http(request: Request, error: Exception) -> JSONResponse:
    failure = cast("HTTPException", error)
    codes = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}
    details = {
        400: "the request body could not be read; send UTF-8 JSON",
        404: "there is nothing at this address",
        405: "this address does not take that method; see the Allow header",
    }
    status, headers = failure.status_code, dict(failure.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request))
        details[405] = f"this address does not take {request.method}; it takes {headers['Allow']}"
    if status == HTTPStatus.NOT_FOUND:
        like = nearest_address(request.url.path, request.app.state.addresses)
        details[404] += "" if like is None else f"; did you mean {like}?"
    return problem_response(
        request.url.path,
        status,
        codes.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_")),
        details.get(status, str(failure.detail)),
        headers=headers,
    )


def _methods_of(request: Request) -> list[str]:
    """Collect the methods of all routes of an address: the router only knows those of the first that it finds."""
    app = cast("FastAPI", request.app)
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return [name for name, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in app.routes)]


def _on_validation(request: Request, error: Exception) -> JSONResponse:
    failure = cast("RequestValidationError", error)
    malformed = next((item for item in failure.errors() if item["type"] == "json_invalid"), None)
    if malformed is not None:
        reason = str(malformed.get("ctx", {}).get("error", "")).lower()
        where = f": {reason} at character {malformed['loc'][-1]}" if reason else ""
        return problem_response(request.url.path, 400, "invalid_json", f"the request body is not valid JSON{where}")
    model = _body_model(request)
    errors = [_field_error(item, failure.body, model) for item in without_consequences(failure.errors())[:_MOST_ERRORS]]
    return problem_response(request.url.path, 422, "invalid_request", _together(errors), errors=errors)


def _together(errors: Sequence[FieldError]) -> str:
    """Say all that is wrong in one sentence, each thing once."""
    return "; ".join(dict.fromkeys(item.message for item in errors))


def _body_model(request: Request) -> type[BaseModel] | None:
    """Return the model of a route's body; None where it has none."""
    route = request.scope.get("route")
    declared = [field.field_info.annotation for field in route.dependant.body_params] if isinstance(route, APIRoute) else []
    return next((kind for kind in declared if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _on_database_down(request: Request, error: Exception) -> JSONResponse:
    return database_problem(request.url.path, error)


def database_problem(instance: str, error: Exception) -> JSONResponse:
    """Answer for a database that is down or full."""
    if is_disk_full(error):
        return _storage_full(instance)
    failure = error.orig if isinstance(error, DBAPIError) else error
    _log.error("database.unavailable", error=type(failure).__name__, reason=first_line(failure))
    return problem_response(
        instance,
        503,
        "database_unavailable",
        "the database cannot be reached; accepted jobs are safe, try again shortly",
        headers={"Retry-After": _RETRY_AFTER_S},
    )


def _on_store_down(request: Request, error: Exception) -> JSONResponse:
    _log.error("store.unavailable", reason=first_line(error))
    return problem_response(
        request.url.path,
        503,
        "store_unavailable",
        "the artifact store cannot be reached; the files are safe, try again shortly",
        headers={"Retry-After": _RETRY_AFTER_S},
    )


def _on_os_error(request: Request, error: Exception) -> JSONResponse:
    if is_disk_full(error):
        return _storage_full(request.url.path)
    return internal_problem(request.url.path, error)


def _storage_full(instance: str) -> JSONResponse:
    return problem_response(instance, 507, "storage_full", "the server has no space left; reading still works")


def _field_error(error: Mapping[str, Any], body: object, model: type[BaseModel] | None) -> FieldError:
    """Turn one of pydantic's errors into a pointer into what the client sent, and a sentence."""
    where, *location = (part[:_LONGEST_NAME] if isinstance(part, str) else part for part in error["loc"])
    message = message_of(error, model if where == "body" else None, location)[:_LONGEST_MESSAGE]
    if where != "body":
        return FieldError(pointer=str(location[0]) if location else str(where), message=_sentence(_name_in(location), message))
    path = _path_in_body(location, body)
    sentence = _sentence(_name_in(path), message) if path else _of_the_body(message)
    return FieldError(pointer="".join(f"/{_escaped(part)}" for part in path), message=sentence)


def _name_in(location: Sequence[str | int]) -> str:
    """Return the name that a sentence about a location begins with; the items of a list have the list's name."""
    names = [str(part) for part in location if not str(part).isdigit()]
    return names[-1] if names else str(location[-1])


def _path_in_body(location: Sequence[str | int], body: object) -> list[str]:
    """Drop from a location what is not in the body: tags of unions, and what ``sparsity`` and ``data`` stand for."""
    node, path = body, list[str]()
    for full, shorthand in _SHORTHANDS.items():
        if tuple(location[: len(full)]) == full and isinstance(body, dict) and shorthand in body:
            return [shorthand]
    for index, part in enumerate(location):
        if isinstance(node, dict):
            fields = cast("dict[object, object]", node)
            if part in fields:
                path.append(str(part))
                node = fields[part]
                continue
        elif isinstance(node, list) and str(part).isdecimal() and int(part) < len(cast("list[object]", node)):
            path.append(str(part))
            node = cast("list[object]", node)[int(part)]
            continue
        if index == len(location) - 1 and isinstance(node, dict):
            path.append(str(part))
    return path


def _pointer_into(body: object, pointer: str) -> str:
    """Turn a pointer into the full spec into one into what the client sent: shorthands stand for whole objects."""
    if not isinstance(body, dict):
        return pointer
    parts = pointer[1:].split("/")
    path = _path_in_body(parts, cast("dict[object, object]", body))
    return "".join(f"/{_escaped(part)}" for part in path) or f"/{parts[0]}"


def _of_the_body(message: str) -> str:
    return f"the body {message}" if message.startswith(_WITHOUT_SUBJECT) else message


def _sentence(name: str, message: str) -> str:
    """Begin messages that lack a subject ("must be > 0") with the field's name."""
    if message.startswith(_WITHOUT_SUBJECT):
        return f"{name} {message}"
    return message if name in message else f"{name}: {message[0].lower()}{message[1:]}"


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
