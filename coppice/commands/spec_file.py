"""The file that ``--spec`` names: its fields as they stand there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from coppice.console import ExitCode, fail


def holds(fields: Mapping[str, Any], path: str) -> bool:
    """Return whether a spec file has a field, by its dotted path."""
    if path == "task.dataset" and "data" in fields:
        return True
    inner: object = fields
    for part in path.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            return False
        inner = cast("Mapping[str, object]", inner)[part]
    return True


def targets_of(fields: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the targets of a spec, as it stands, each as an object; what is malformed is left out."""
    several = fields.get("targets")
    stated: list[object] = [fields.get("target"), *(cast("list[object]", several) if isinstance(several, list) else ())]
    found = [dict(cast("Mapping[str, object]", own)) for own in stated if isinstance(own, Mapping)]
    return found or ([{"metric": "sparsity", "sparsity": fields["sparsity"]}] if "sparsity" in fields else [])


def with_tolerance(
    targets: list[dict[str, object]], tolerance: float | None, fields: Mapping[str, Any]
) -> list[dict[str, object]]:
    """Return targets with a tolerance: the one given, else that of the spec's own target of the same metric.

    Args:
        targets: The targets.
        tolerance: The tolerance of all of them, if one was given.
        fields: The spec as it stands, whose targets these replace.
    """
    if tolerance is not None:
        return [own | {"tolerance": tolerance} for own in targets]
    kept = {own.get("metric"): own["tolerance"] for own in targets_of(fields) if "tolerance" in own}
    return [own | ({"tolerance": kept[own["metric"]]} if own["metric"] in kept else {}) for own in targets]


def read_spec(path: Path) -> dict[str, Any]:
    """Read a spec file as it stands. One that cannot be read ends the command."""
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"{path} cannot be read ({error.strerror})", ExitCode.BAD_INPUT)
    except json.JSONDecodeError as error:
        fail(f"{path} is not JSON: {error.msg}, in line {error.lineno}, column {error.colno}", ExitCode.BAD_INPUT)
    except ValueError:
        fail(f"{path} is not JSON: it is not UTF-8 text", ExitCode.BAD_INPUT)
    except RecursionError:
        fail(f"{path} is nested too deeply", ExitCode.BAD_INPUT)
    if not isinstance(document, Mapping):
        fail(f"{path} must hold a JSON object", ExitCode.BAD_INPUT)
    return dict(cast("Mapping[str, Any]", document))
