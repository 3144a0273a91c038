"""Latencies in engines: what such a target says of the rest of a request. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.targets import LatencyTarget, Phase, Target
from pruning_core.spec.tasks import KINDS, TaskType


def with_engines(given: dict[str, Any]) -> dict[str, Any]:
    """Add the engines of a request's targets to those of its bundle: they say which shapes it may have, and try it afterwards.

    Args:
        given: The fields of a request, not validated yet. What is malformed stays as it is, to be refused by its own field.
    """
    named = [*dict.fromkeys(_named(given))]
    artifacts: object = given.get("artifacts", {})
    if not named or not isinstance(artifacts, Mapping | ArtifactSpec):
        return given
    fields = dict(artifacts) if isinstance(artifacts, ArtifactSpec) else dict(cast("Mapping[str, Any]", artifacts))
    stated: object = fields.get("engines", ())
    if not isinstance(stated, list | tuple):
        return given
    own = cast("Sequence[object]", stated)
    missing = [name for name in named if name not in own]
    return given | {"artifacts": fields | {"engines": [*own, *missing]}} if missing else given


def _named(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the engines that targets name."""
    several: object = given.get("targets", ())
    for target in (given.get("target"), *(cast("Sequence[object]", several) if isinstance(several, list | tuple) else ())):
        found = target.engine if isinstance(target, LatencyTarget) else None
        if isinstance(target, Mapping):
            found = cast("Mapping[str, object]", target).get("engine")
        if isinstance(found, str):
            yield found


def has_phases(task_type: TaskType) -> bool:
    """Return whether models of a task type read a prompt and then write tokens."""
    return KINDS[task_type].loads_as == "AutoModelForCausalLM"


def phase_of(target: LatencyTarget, task_type: TaskType) -> Phase | None:
    """Return the phase that a target means; None where a pass is all there is."""
    return (target.phase or "decode") if has_phases(task_type) else None


def in_engines(targets: Sequence[Target]) -> list[tuple[LatencyTarget, str]]:
    """Return the targets that are latencies in an engine, each with the engine's name."""
    return [(own, own.engine) for own in targets if isinstance(own, LatencyTarget) and own.engine is not None]


def check_phases(targets: Sequence[Target], task_type: TaskType) -> None:
    """Check that phases are asked for of models that have some.

    Raises:
        ValueError: They are not.
    """
    for target, _engine in in_engines(targets):
        if target.phase is not None and not has_phases(task_type):
            raise ValueError(f"phase is for text-generation; a {task_type} model makes one pass, so leave phase out")
