"""Targets: how much of a model may stay, and in which metric. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pruning_core.spec.frozen import Frozen


def _open_fraction(value: object) -> float:
    """Accept a number strictly between 0 and 1; say in one sentence what would be right otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = "text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise ValueError(f"must be a number > 0 and < 1, got {given}")  # noqa: TRY004 - pydantic's protocol
    if not 0 < value < 1:  # NaN fails this too, and integers too large for a float are compared exactly
        shown = "a huge number" if abs(value) > 10**12 else value
        raise ValueError(f"must be > 0 and < 1, got {shown}")
    return float(value)


OpenFraction = Annotated[float, BeforeValidator(_open_fraction), Field(gt=0, lt=1)]


@dataclass(frozen=True, slots=True)
class TargetMetric:
    """What a target is asked in, in words. How it is priced and recounted is `pruning_core.budgets.RULES`.

    Attributes:
        title: The metric and what its value is, as a form says it.
        asked: What was asked for, as a sentence without its end; ``{}`` is the share.
        came: What became of the share that was reached.
        share_of: What a share of it is a share of.
        removed: Whether the value is a share that goes; else one that may stay.
        measured: Whether a clock decides, which is noisy; else a count.
    """

    title: str
    asked: str
    came: str
    share_of: str
    removed: bool = False
    measured: bool = False

    @property
    def field(self) -> str:
        """Field of the target that holds the value."""
        return "sparsity" if self.removed else "keep"


# The registry: a metric is a row here and a row of `pruning_core.budgets.RULES`.
TARGET_METRICS: dict[str, TargetMetric] = {
    "sparsity": TargetMetric(
        "Sparsity: share of the prunable weights to remove",
        "Asked to remove {} of the prunable weights",
        "are gone",
        "sparsity",
        removed=True,
    ),
    "macs": TargetMetric(
        "MACs: share of the multiply-accumulates to keep", "Asked to keep at most {} of the MACs", "stayed", "of the MACs"
    ),
    "params": TargetMetric(
        "Parameters: share of all parameters to keep",
        "Asked to keep at most {} of the parameters",
        "stayed",
        "of the parameters",
    ),
    "latency": TargetMetric(
        "Latency: share of the dense latency to keep, measured",
        "Asked to keep at most {} of the latency",
        "stayed",
        "of the latency",
        measured=True,
    ),
    "pattern": TargetMetric(
        "Pattern: what the pattern of the method says",
        "Asked for {} of the weights in whole blocks to be zero",
        "are",
        "of the weights in whole blocks",
        removed=True,
    ),
}


def _known_metric(name: str) -> str:
    if name not in TARGET_METRICS:
        raise ValueError(f"must be one of {', '.join(TARGET_METRICS)}, got {name!r}")
    return name


MetricName = Annotated[str, AfterValidator(_known_metric), Field(json_schema_extra={"enum": [*TARGET_METRICS]})]


def target_verdict(metric: str, requested: float, achieved: float) -> str:
    """Say what was asked for and what came of it, as a sentence without its end."""
    row = TARGET_METRICS[metric]
    return f"{row.asked.format(f'{100 * requested:.4g}%')}; {100 * achieved:.2f}% {row.came}"


class SparsityTarget(Frozen):
    """Remove this fraction of the weights in the prunable linear layers (no embeddings, no task head, no biases)."""

    metric: Literal["sparsity"] = "sparsity"
    sparsity: OpenFraction
    tolerance: float = Field(default=0.01, gt=0, le=0.1, description="Allowed distance below the budget, same unit.")

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the sparsity."""
        return self.sparsity


class KeepTarget(Frozen):
    """Keep at most this fraction of the metric.

    ``macs``: multiply-accumulates of the prunable blocks at the task's mean real sequence length.
    ``params``: all parameters of the model, embeddings and task head included.
    """

    metric: Literal["macs", "params"]
    keep: OpenFraction
    tolerance: float = Field(default=0.01, gt=0, le=0.1, description="Allowed distance below the budget, same unit.")

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the fraction kept."""
        return self.keep


class LatencyTarget(Frozen):
    """Keep at most this fraction of the dense latency, measured on the device that prunes at the spec's latency shape."""

    metric: Literal["latency"]
    keep: OpenFraction
    tolerance: float = Field(
        default=0.05, gt=0, le=0.2, description="Allowed distance below the budget; clocks are noisier than counts."
    )

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the fraction kept."""
        return self.keep


class PatternTarget(Frozen):
    """Every block keeps what its pattern says: this share of the weights that whole blocks cover is zero.

    It follows from ``method.pattern`` and need not be given. Where a width is no multiple of the block's, what is left over
    stays dense and is counted in ``sparsity``, not here.
    """

    metric: Literal["pattern"] = "pattern"
    sparsity: float = Field(gt=0, lt=1)
    tolerance: float = Field(default=0.01, gt=0, le=0.1, description="Share of further weights that may be zero.")

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the sparsity of the blocks."""
        return self.sparsity


Target = Annotated[SparsityTarget | KeepTarget | LatencyTarget | PatternTarget, Field(discriminator="metric")]


def target_name(target: Target) -> str:
    """Name a target the way its sub-folder is named: ``macs-0.3``, ``sparsity-0.5``."""
    return f"{target.metric}-{target.requested:g}"


def sparsities_of(targets: Sequence[Target]) -> list[float]:
    """List the sparsities that are asked for of all prunable weights."""
    return [target.sparsity for target in targets if isinstance(target, SparsityTarget)]


def any_measured(targets: Sequence[Target]) -> bool:
    """Tell whether a clock decides about one of the targets."""
    return any(TARGET_METRICS[target.metric].measured for target in targets)
