"""Reports of further evaluation sets. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.report.quality import PrecisionReport, QualityReport
from pruning_core.spec.frozen import Frozen


class AlsoReport(Frozen):
    """A further evaluation set: dense and pruned on the same rows, as `quality` is of the task's."""

    name: str
    task: str = Field(description="The type of the task that it was judged as.")
    metric: str
    samples: int
    quality: QualityReport | None = Field(default=None, description="Null where it could not be judged: see `reason`.")
    reason: str | None = Field(default=None, description="Why it could not be judged.")

    def computed_in(self, precision: PrecisionReport | None) -> AlsoReport:
        """Return the report with the precision that it was measured in."""
        return self if self.quality is None else self.but(quality=self.quality.but(precision=precision))


def set_named(also: tuple[AlsoReport, ...], name: str) -> AlsoReport | None:
    """Return the report of a set; None where there is none of that name."""
    return next((own for own in also if own.name == name), None)
