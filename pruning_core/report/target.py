"""The report on a target: what was asked for, and what was achieved. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.engines import EngineName
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.targets import TARGET_METRICS, MetricName, Phase, amount_text, in_engine, target_verdict

# Rounding error of sums of prices in float64.
_ROUNDING = 1e-9


def _is_unset(value: object) -> bool:
    return value is None


class TargetReport(Frozen):
    """The requested and the achieved target, both in the metric's own unit."""

    metric: MetricName
    requested: float
    achieved: float
    tolerance: float
    # Left out where the target is none in an engine: such reports stay what they were.
    engine: EngineName | None = Field(
        default=None, exclude_if=_is_unset, description="The engine in which the latency was planned and measured."
    )
    phase: Phase | None = Field(default=None, exclude_if=_is_unset)
    predicted: float | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="What the table that was measured in the engine predicts of the shapes that were chosen.",
    )

    @property
    def where(self) -> str:
        """Where a latency was measured, if in an engine, as words that follow it."""
        return "" if self.engine is None else in_engine(self.engine, self.phase)

    @property
    def verdict(self) -> str:
        """What was asked for and what was achieved, as a sentence without its end."""
        said = target_verdict(self.metric, self.requested, self.achieved, self.where)
        return said if self.predicted is None else f"{said} ({100 * self.predicted:.2f}% by the table that was measured there)"

    @property
    def asked(self) -> str:
        """The metric and the requested value in few words: ``macs 0.5``, ``bytes 100 MB``."""
        return f"{self.metric} {amount_text(self.metric, self.requested)}"

    @property
    def met(self) -> bool:
        """Whether the target is met: the achieved value is not above the budget, and below it by no more than the tolerance.

        In an engine, whose clock judges a plan and is not asked again, it may be above it by the tolerance, or below it.
        """
        beyond = self.achieved - self.requested
        if self.engine is not None:
            return beyond <= self.tolerance + _ROUNDING
        if TARGET_METRICS[self.metric].absolute:
            return beyond <= 0
        if TARGET_METRICS[self.metric].removed:
            beyond = -beyond
        return -self.tolerance <= beyond <= _ROUNDING
