"""The body of a job, made of the arguments of `Client.prune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def job_body(
    model: str,
    task: str | Mapping[str, Any],
    *,
    sparsity: float | None,
    target: Mapping[str, Any] | None,
    data: str | None,
    method: str | Mapping[str, Any] | None,
    slices: Sequence[str] | None,
    also: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any] | None,
    name: str | None,
    tags: Sequence[str] | None,
    metadata: Mapping[str, str] | None,
    priority: int | None,
) -> dict[str, Any]:
    """Return the body of a job. What was not given is left out, so that the service's defaults hold."""
    given = {
        "model": model,
        "task": task,
        "sparsity": sparsity,
        "target": target,
        "data": data,
        "method": method,
        "name": name,
        "tags": None if tags is None else list(tags),
        "metadata": metadata,
        "priority": priority,
    }
    body: dict[str, Any] = {**(options or {}), **{name: value for name, value in given.items() if value is not None}}
    how = {name: list(value) for name, value in (("slices", slices), ("also", also)) if value is not None}
    earlier: Mapping[str, Any] = body.get("evaluation", {})
    return body | ({"evaluation": {**earlier, **how}} if how else {})
