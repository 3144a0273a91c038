"""Everything that is wrong with a filled-in form, at once: what the schema finds, and what the files would find beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.errors import FieldError, field_errors, refusal_errors
from app.jobs.schemas import JobCreate
from app.jobs.service import JobService
from app.refusals import RequestError

# Stand for what was said wrongly, so that the rest can be looked at; no job is made of them.
_INSTEAD: Mapping[str, Any] = {"target": {"metric": "macs", "keep": 0.5}}
_TARGETS = frozenset({"target", "targets", "sparsity"})


async def complaints(body: Mapping[str, Any], error: ValidationError, service: JobService, *, owner: str) -> list[FieldError]:
    """List what is wrong with a body that is no request.

    Fields with errors are put aside, and what is left is checked against the server's files as a submit checks it: else people
    would mend a number, and hear of the folder at the next try.

    Args:
        body: The body.
        error: What its validation found.
        service: Checks files.
        owner: Who asks.
    """
    found = field_errors(error, body, JobCreate)
    wrong = {own.pointer.split("/")[1] for own in found if own.pointer}
    if not all(own.pointer for own in found) or wrong & {"model", "task"}:
        return found  # nothing is left to look at
    asked_wrongly = wrong & (_TARGETS | {"quality_floor", "method"})
    aside = wrong | (_TARGETS if asked_wrongly else set())
    rest = {name: value for name, value in body.items() if name not in aside} | (dict(_INSTEAD) if asked_wrongly else {})
    try:
        await service.admit(JobCreate.model_validate(rest), owner=owner)
    except ValidationError:
        return found
    except RequestError as refusal:
        beside = refusal_errors(refusal, rest)
        return found + [own for own in beside if own.pointer.split("/")[1:2] != ["target"] and own not in found]
    return found
