"""Parameters that are misspelt. One that nobody reads would be silent, and the answer another than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import cast

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.api.filters import METADATA_PARAMETER
from app.errors import FieldError, Problem
from app.paths import is_under
from pruning_core.spec.nearest import nearest

_METADATA = str(METADATA_PARAMETER["name"])
_MOST_LOOKED_AT = 32


async def check_spelling(request: Request) -> None:
    """Refuse a parameter of the query that is nearly one of this address. Others, which proxies add, are ignored.

    This takes no thread, though it never waits: signs of life pass here, and all threads may be taken.
    The Hub's clients are not ours, and may ask their own questions in any words.
    """
    given = list(dict.fromkeys(request.query_params))[:_MOST_LOOKED_AT]
    if not given or is_under(request.url.path, "/hub"):
        return
    route = request.scope["route"]
    known = set(_names(cast("Dependant", route.dependant)))
    if any(own.get("name") == _METADATA for own in (route.openapi_extra or {}).get("parameters", ())):
        known.add(_METADATA)
    errors = [
        FieldError(pointer=name[:64], message=f"{name[:64]} is no parameter of this address; did you mean {like}?")
        for name in given
        if (plain := name.partition("[")[0]) not in known and (like := nearest(plain, known)) is not None
    ]
    if errors:
        sentence = "; ".join(error.message for error in errors)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", sentence, errors=errors)


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
