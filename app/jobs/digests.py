"""Digests of requests: they tell whether two requests for a job are the same one.

A digest is taken of what was sent, not of what this version makes of it, so that a later version, whose model has more fields,
finds a request that it has answered before. JSON that means the same has the same digest: the order of keys, white space and
the form of a number (``1``, ``1.0``, ``1e0``) do not count.

Rows of versions before this one hold another digest: that of the validated model as JSON, all defaults included, its fields in
their order then. Which fields those were stands in the row's own spec, so `first_digest` computes that digest for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic_core import to_json

from app.jobs.limits import NO_LIMITS, limits_of
from app.jobs.naming import NO_NAMING
from app.jobs.needs import NO_NEEDS
from app.jobs.schemas import JobCreate

_WHOLLY_OURS = "validate_only"  # says how to handle the request, and is no part of its content


def digest_of(sent: Mapping[str, Any]) -> str:
    """Compute the digest of a body as it was sent."""
    asked = {name: _canonical(value) for name, value in sent.items() if name != _WHOLLY_OURS}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def first_digest(request: JobCreate, stored: Mapping[str, Any]) -> str | None:
    """Compute the digest that the first versions gave a request.

    Args:
        request: The request, as this version reads it.
        stored: The spec of the job that it may be the request of, as it stands in the database.

    Returns:
        The digest, or None where the request sets what those versions did not know.
    """
    if limits_of(request) != NO_LIMITS or request.calibration_id is not None or request.naming != NO_NAMING:
        return None
    spec = request.to_spec()
    if request.needs != NO_NEEDS or _adds(spec.model_dump(mode="json", exclude_defaults=True), stored):
        return None
    body: dict[str, Any] = _known(spec.model_dump(mode="json"), stored)
    body |= {"metadata": request.metadata, "priority": request.priority, "validate_only": False}
    return hashlib.sha256(to_json(body)).hexdigest()


def _canonical(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _canonical(inner) for name, inner in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in cast("Sequence[object]", value)]
    return value


def _known(value: Any, stored: Any) -> Any:
    """Reduce a value to the fields of a stored one, in their order."""
    if isinstance(value, dict) and isinstance(stored, Mapping):
        fields, names = cast("dict[str, Any]", value), cast("Mapping[str, Any]", stored)
        return {name: _known(fields[name], names[name]) for name in names if name in fields}
    if isinstance(value, list) and isinstance(stored, list):
        values, those = cast("list[Any]", value), cast("list[Any]", stored)
        return [_known(*pair) for pair in zip(values, those, strict=True)] if len(values) == len(those) else values
    return value


def _adds(value: Any, stored: Any) -> bool:
    """Return whether a value has fields that a stored one has not."""
    if isinstance(value, dict) and isinstance(stored, Mapping):
        fields, names = cast("dict[str, Any]", value), cast("Mapping[str, Any]", stored)
        return any(name not in names or _adds(inner, names[name]) for name, inner in fields.items())
    if isinstance(value, list) and isinstance(stored, list):
        return any(_adds(*pair) for pair in zip(cast("list[Any]", value), cast("list[Any]", stored), strict=False))
    return False
