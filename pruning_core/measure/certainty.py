"""The certainty of a comparison: what the report says of it, and whether a floor is held by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import cast

from pruning_core.errors import DatasetInvalid
from pruning_core.measure.paired import CONFIDENCE, LEAST_ROWS, Draws, Range, chance, draw
from pruning_core.report.quality import (
    ChangedReport,
    DifferenceReport,
    FloorReport,
    IntervalReport,
    PrecisionReport,
    QualityReport,
)
from pruning_core.report.where import WhereReport
from pruning_core.spec.artifacts import QualityFloor
from pruning_core.spec.metrics import METRICS, Metric
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import finding_of
from pruning_core.tasks.base import Judged
from pruning_core.tasks.row_forms import RowForm, RowSums
from pruning_core.tasks.row_sums import changes

# Figures are written to so many digits behind the point, so that rounding by threads does not show.
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured quality, and the draws that say how sure it is.

    Attributes:
        quality: The report, with its intervals.
        draws: The metric of both models for each draw of the rows; or the reason why there are none.
        where: Where quality was lost; None for tasks that do not tell.
    """

    quality: QualityReport
    draws: Draws | str
    where: WhereReport | None = None

    def computed_in(self, precision: PrecisionReport | None) -> Comparison:
        """Return the comparison with the precision that it was measured in."""
        return replace(self, quality=self.quality.but(precision=precision))

    def floor(self, floor: QualityFloor) -> FloorReport:
        """Judge a floor by the quality, or by the end of its interval where the floor has a confidence."""
        quality, lower = self.quality, self.quality.lower_is_better
        return FloorReport(
            kind=floor.kind,
            requested=floor.value,
            required=floor.required(quality.dense, lower_is_better=lower),
            achieved=quality.pruned,
            lower_is_better=lower,
            confidence=floor.confidence,
            bound=None if floor.confidence is None else self._bound(floor, floor.confidence),
        )

    def _bound(self, floor: QualityFloor, confidence: float) -> float | None:
        """Return the worse end of the interval; of a relative floor, for the dense model as measured.

        A relative floor moves with the dense model's quality on the same rows, so what is drawn is the distance from it.
        """
        if isinstance(self.draws, str):
            return None
        lower = self.quality.lower_is_better
        if floor.kind == "absolute":
            ends, base = self.draws.range_of_one("pruned", confidence), 0.0
        else:
            share = 1 / floor.value if lower else floor.value
            ends, base = self.draws.range_of(share, confidence), share * self.quality.dense
        return round(base + (ends.high if lower else ends.low), DIGITS)


def compared(spec: PruneSpec, judged: Judged, quality: QualityReport) -> Comparison:
    """Add intervals, a test and the number of changed answers to a measured quality.

    Args:
        spec: The request, for its task and seed.
        judged: The findings of both models on the same rows.
        quality: The metric of both.
    """
    form = rows_of(spec.task.metric, finding_of(spec.task.type, spec.task.metric), judged)
    found = changes(judged.dense, judged.pruned)
    if found is not None:
        changed = ChangedReport(answers=found.answers, gained=found.gained, lost=found.lost, of=found.of)
        quality = quality.but(changed=changed)
    if form is None:
        why = f"{quality.metric} has no form by rows"
        return Comparison(quality.but(no_interval=why), why)
    draws = "the pruned model's scores are all alike" if quality.undefined else draw(form, spec.seed)
    if isinstance(draws, str):
        return Comparison(quality.but(no_interval=draws), draws)
    shares = isinstance(form, RowSums) and form.binary
    method = "wilson" if shares else "bootstrap"
    both, tested = draws.range_of(1.0, CONFIDENCE), chance(form, spec.seed)
    difference = DifferenceReport(
        value=round(quality.pruned - quality.dense, DIGITS),
        low=round(both.low, DIGITS),
        high=round(both.high, DIGITS),
        confidence=CONFIDENCE,
        method="bonett-price" if shares else "bootstrap",
        p_value=round(tested.p_value, DIGITS),
        test=tested.test,
    )
    return Comparison(
        quality.but(
            interval_dense=_interval(draws.range_of_one("dense", CONFIDENCE), method),
            interval_pruned=_interval(draws.range_of_one("pruned", CONFIDENCE), method),
            difference=difference,
            no_interval=_without_width(both, quality),
        ),
        draws,
    )


def rows_of(metric: Metric, finding: str, judged: Judged) -> RowForm | None:
    """Return what a metric needs of each row; None for metrics that do not say."""
    name = METRICS[metric].by_rows.get(finding)
    if name is None:
        return None
    give = cast("Callable[[object, object], RowForm | None]", resolve_name(name))
    return give(judged.dense, judged.pruned)


def check_certain(spec: PruneSpec, samples: int) -> None:
    """Check that a floor with a confidence can be judged at all.

    Raises:
        DatasetInvalid: There are too few rows, or the metric has no intervals.
    """
    floor = spec.quality_floor
    if floor is None or floor.confidence is None:
        return
    if finding_of(spec.task.type, spec.task.metric) not in METRICS[spec.task.metric].by_rows:
        raise DatasetInvalid(
            f"{spec.task.metric} has no intervals, and quality_floor.confidence judges by one; leave it out, or take another "
            "metric",
            param="quality_floor.confidence",
        )
    if samples < LEAST_ROWS:
        raise DatasetInvalid(
            f"quality_floor.confidence needs an interval, which needs at least {LEAST_ROWS} validation rows, got {samples}; "
            "give more rows, or leave it out",
            param="quality_floor.confidence",
        )


def _interval(found: Range, method: str) -> IntervalReport:
    return IntervalReport(low=round(found.low, DIGITS), high=round(found.high, DIGITS), confidence=CONFIDENCE, method=method)


def _without_width(found: Range, quality: QualityReport) -> str | None:
    if found.low < found.high:
        return None
    if quality.pruned == quality.dense:
        return "the models are alike on every row, so the rows do not tell how far apart they may be on others"
    return "the difference is the same for every draw of the rows, so it has no spread"
