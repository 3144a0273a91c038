"""The OpenAPI document: FastAPI's own, completed with what FastAPI cannot know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

# Where the browser of the API looks for it: beside its own page, on the service as on a site of static files.
BESIDE_BROWSER = "/docs/api/openapi.json"
_PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}
_OPEN = ("/healthz", "/readyz")
# Problems that any operation may answer with. Generated clients parse only the answers that are listed.
_ANYWHERE = {
    "400": "The request cannot be read",
    "408": "The body did not come",
    "413": "The body is too large",
    "422": "Something in the request is wrong; `errors` says what and where",
    "500": "An error of the server's",
    "503": "The database or the store cannot be reached, or all are busy; try again after `Retry-After` seconds",
}
_GUARDED = {
    "401": "No API key, or a wrong one",
    "403": "The key lacks a scope",
    "429": "Too many requests, jobs, bytes or uploads of yours; try again after `Retry-After` seconds",
}
_WITH_PATH = {"404": "There is no such thing, or it is another tenant's"}
_WITH_BODY = {"415": "The body has another media type than this takes", "507": "The server's disk is full"}
_DELETING = {"409": "The tenant is being deleted"}
_BY_OPERATION = {
    "putJob": {"409": "The id is that of another job"},
    "cancelJob": {"409": "The job has finished"},
    "retryJob": {"409": "The job has not failed"},
    "createJob": _DELETING,
    "deriveJob": _DELETING,
    "retryJobs": _DELETING,
    "uploadModel": _DELETING,
    "uploadDataset": _DELETING,
    "createWebhook": _DELETING,
    "deleteTenant": {"409": "The key that asks is of this tenant"},
    "endSession": {"409": "It is no login of a command line"},
    "createKey": _DELETING,
    "deleteJob": {"409": "A worker has the job: cancel it first"},
    "deleteModel": {"409": "A job needs it"},
    "deleteDataset": {"409": "A job needs it"},
    "downloadArtifact": {"416": "The range lies outside the file"},
}


def install_contract(app: FastAPI) -> None:
    """Make the application serve the completed document.

    It is built and written out once, at the first request for it, in a thread: it takes most of a second, which the event loop
    must not. Whoever may ask needs no key.
    """
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(derive())
        return app.openapi_schema

    app.openapi = openapi
    turn, written = asyncio.Lock(), list[bytes]()

    @app.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route(BESIDE_BROWSER, methods=["GET", "HEAD"], include_in_schema=False)
    async def document() -> Response:
        async with turn:  # many may ask at once, and occupy one thread
            if not written:
                written.append(await run_in_threadpool(lambda: bytes(JSONResponse(app.openapi()).body)))
        return Response(written[0], media_type="application/json")


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    for path, operation in _operations(document):
        answers: dict[str, Any] = operation["responses"]
        for status, description in _problems(path, operation).items():
            answers[status] = {"description": description}
        for status, answer in answers.items():
            is_problem = status == "default" or (status.isdigit() and int(status) >= 400)
            if is_problem:
                answer["content"] = {"application/problem+json": {"schema": _PROBLEM}}
        if path in _OPEN:
            operation["security"] = []
    schemas: dict[str, Any] = document["components"]["schemas"]
    # The schemas of FastAPI's own errors, which the API never sends.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in ("JobCreate", "PruneSpec"):
        # "One of these fields is required" (anyOf) makes generators give up the whole type; the server checks it instead.
        schemas[name].pop("anyOf", None)
        schemas[name].pop("oneOf", None)
        for field in schemas[name]["properties"].values():
            # Objects as defaults have the same effect. They are not needed: the fields of each object have defaults.
            if isinstance(field.get("default"), dict):
                del field["default"]
    return document


def _problems(path: str, operation: dict[str, Any]) -> dict[str, str]:
    problems = dict(_ANYWHERE)
    if path not in _OPEN:
        problems |= _GUARDED
    if "{" in path:
        problems |= _WITH_PATH
    if "requestBody" in operation:
        problems |= _WITH_BODY
    return problems | _BY_OPERATION.get(operation["operationId"], {})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation
