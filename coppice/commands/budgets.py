"""Options that say how small or fast a model is to become, and how good it must stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import typer

from coppice.console import ExitCode, fail
from pruning_core.spec.targets import TARGET_METRICS

Sparsity = Annotated[
    list[float] | None,
    typer.Option(help="Fraction of the prunable weights to remove, 0 to 1. Repeat any target for a frontier."),
]
MacsKeep = Annotated[list[float] | None, typer.Option(help="Fraction of the MACs to keep, instead of --sparsity.")]
ParamsKeep = Annotated[list[float] | None, typer.Option(help="Fraction of all parameters to keep, instead of --sparsity.")]
LatencyKeep = Annotated[
    list[float] | None, typer.Option(help="Fraction of the measured latency to keep, instead of --sparsity.")
]
BytesAtMost = Annotated[
    list[str] | None,
    typer.Option(
        help="Most bytes of the weight files, such as 100MB: chooses widths and the storage type of each matrix, instead of "
        "--sparsity."
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="How far what is achieved may lie from a target; by default 0.01, and 0.05 for a latency."),
]
QualityFloor = Annotated[
    float | None,
    typer.Option(
        help="Share of the dense model's quality that must be kept, e.g. 0.99; the job fails below it. Without a target: find "
        "the smallest model that keeps it."
    ),
]
FloorConfidence = Annotated[
    float | None,
    typer.Option(help="Hold the quality floor by the lower end of the interval of this confidence, e.g. 0.95."),
]

# Options of targets, by their names.
TARGET_OPTIONS = {
    "sparsity": "--sparsity",
    "macs_keep": "--macs-keep",
    "params_keep": "--params-keep",
    "latency_keep": "--latency-keep",
    "bytes_at_most": "--bytes-at-most",
}


def as_target(name: str, value: float | str, place: Mapping[str, object]) -> dict[str, object]:
    """Return the target that an option asks for.

    Args:
        name: Of the option, as of `TARGET_OPTIONS`.
        value: What was given.
        place: Engine and phase in which a latency is measured.
    """
    metric = name.removesuffix("_keep").removesuffix("_at_most")
    return {"metric": metric, TARGET_METRICS[metric].field: value, **(place if name == "latency_keep" else {})}


def floor_of(given: object, confidence: float | None) -> dict[str, Any]:
    """Return the floor of quality with the confidence that an option sets; nothing where none does.

    Args:
        given: The floor, of an option or of the spec file.
        confidence: The confidence.
    """
    if confidence is None:
        return {}
    if given is None:
        fail("--floor-confidence says how sure to be of --quality-floor: give both", ExitCode.BAD_INPUT)
    floor = cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {"value": given}
    return {"quality_floor": {**floor, "confidence": confidence}}
