"""From HTTP to values and errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from coppice.errors import CoppiceError, error_for
from coppice.models import Problem

_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], response: httpx2.Response) -> _Model:
    """Read an answer.

    Raises:
        CoppiceError: It is not what a Coppice service of this version says.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise CoppiceError(
            f"{response.request.url} does not answer like a Coppice service of this version: {error.error_count()} fields of "
            f"{model.__name__} do not fit; check the address, or update the client"
        ) from error


def raise_for_problem(response: httpx2.Response) -> None:
    """Raise what a 4xx or 5xx answer says; its body must have been read.

    Raises:
        ProblemError: The subclass that fits.
    """
    if response.is_success or response.status_code == HTTPStatus.NOT_MODIFIED:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy in between, or no Coppice at all
        detail = f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
        problem = Problem(title=response.reason_phrase, status=response.status_code, detail=detail, code="unknown")
    raise error_for(problem)
