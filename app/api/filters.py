"""The filter ``metadata[key]=value`` of lists."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from fastapi import Request

from app.errors import FieldError, Problem

_NAME = re.compile(r"metadata\[([A-Za-z0-9_.\-]{1,64})\]", re.ASCII)
_LONGEST = 512
_MOST = 16

METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Only jobs with this metadata, e.g. `metadata[run]=7`; several mean all of them.",
    "schema": {
        "type": "object",
        "maxProperties": _MOST,
        "propertyNames": {"pattern": r"^[A-Za-z0-9_.\-]{1,64}$"},
        "additionalProperties": {"type": "string", "maxLength": _LONGEST, "pattern": r"^[^\x00]*$"},
    },
}


def metadata_filter(request: Request) -> dict[str, str]:
    """Read the filter from the query string."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if not name.startswith("metadata"):
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise _problem("must be metadata[key]=value, the key of at most 64 letters, digits, _ . and -")
        if len(value) > _LONGEST or "\0" in value:
            raise _problem(f"must have values of at most {_LONGEST} characters, and no NUL")
        if match[1] in wanted:
            raise _problem("must name each key once")
        wanted[match[1]] = value
    if len(wanted) > _MOST:
        raise _problem(f"must have at most {_MOST} keys")
    return wanted


def _problem(message: str) -> Problem:
    sentence = f"metadata {message}"
    error = FieldError(pointer="metadata", message=sentence)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", sentence, errors=[error])
