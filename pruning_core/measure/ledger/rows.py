"""Rows of the ledger: a paired interval each, and a verdict by the interval's ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pruning_core.measure.certainty import DIGITS, Comparison
from pruning_core.measure.paired import CONFIDENCE, Draws, draw
from pruning_core.report.ledger import WITHOUT_VERDICT, Judgement, LedgerRow, Verdict
from pruning_core.spec.metrics import METRICS
from pruning_core.tasks.row_forms import Floats, RowForm

# How much worse still counts as kept (docs/decisions/0122). Of perplexity a factor, else a difference.
PERPLEXITY = 1.2
POINTS = 0.05
LIMITS: dict[Judgement, float] = {
    "perplexity": PERPLEXITY,
    "agreement": 0.25,
    "cloze": POINTS,
    "endings": 0.1,
    "repetition": 0.1,
    "similarity": 0.1,
    "neighbours": 0.25,
    "retrieval": POINTS,
    "lm_eval": POINTS,
}
_LESS_IS_BETTER = frozenset({"perplexity", "repetition"})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a row is about.

    Attributes:
        name: Its name.
        judged_by: How it is judged.
        unit: What a row of it is.
        metric: Of a task of lm-eval.
        chance: What guessing would get: a dense model that gets no more has nothing to lose.
    """

    name: str
    judged_by: Judgement
    unit: str
    metric: str = ""
    chance: float | None = None

    def lacking(self, reason: str, *, rows: int = 0, verdict: Verdict = "unclear") -> LedgerRow:
        """Return the row of what could not be judged."""
        return LedgerRow(
            subject=self.name,
            judged_by=self.judged_by,
            metric=self.metric,
            rows=rows,
            unit=self.unit,
            lower_is_better=self.judged_by in _LESS_IS_BETTER,
            verdict=None if self.judged_by in WITHOUT_VERDICT and verdict == "unclear" else verdict,
            limit=LIMITS[self.judged_by],
            reason=reason,
        )

    def row(self, form: RowForm, seed: int) -> LedgerRow:
        """Judge both models' rows."""
        found = self.lacking("", rows=int(form.rows.sum())).but(reason=None)
        dense, pruned = (_finite(own) for own in form.values(form.rows[None].astype(np.float64)))
        found = found.but(dense=dense, pruned=pruned)
        if dense is None or pruned is None:
            return found.but(reason="the figure is undefined: the scores are all alike")
        draws = draw(form, seed)
        if isinstance(draws, str):
            return found.but(reason=draws)
        ends = draws.range_of(1.0, CONFIDENCE)
        found = found.but(low=round(ends.low, DIGITS), high=round(ends.high, DIGITS))
        if self.chance is not None and draws.range_of_one("dense", CONFIDENCE).low <= self.chance:
            said = f"the dense model is not surely better than guessing ({self.chance:.2f}), so there is little to lose"
            return found.but(reason=said)
        if self.judged_by in WITHOUT_VERDICT:
            return found
        limit, lower = LIMITS[self.judged_by], found.lower_is_better
        return found.but(verdict=verdict_of(draws, limit, lower=lower, is_factor=self.judged_by == "perplexity"))


def verdict_of(draws: Draws, limit: float, *, lower: bool, is_factor: bool) -> Verdict:
    """Judge by the interval whether the pruned model is worse than a limit allows.

    Args:
        draws: The metric of both models for each draw of the rows.
        limit: A factor of the dense model's metric, or a difference from it.
        lower: Whether less is better.
        is_factor: Which of them it is.
    """
    if is_factor:
        ends = draws.range_of(limit, CONFIDENCE)
        best, worst, limit = ends.low, ends.high, 0.0
    else:
        ends = draws.range_of(1.0, CONFIDENCE)
        best, worst = (ends.low, ends.high) if lower else (-ends.high, -ends.low)
    return "kept" if worst <= limit else "lost" if best > limit else "unclear"


def verdict_on_task(found: Comparison) -> Verdict:
    """Judge the task's own quality by the same limits; of cosines to the dense model by that of similarities."""
    if isinstance(found.draws, str):
        return "unclear"
    metric = METRICS[found.quality.metric]
    if metric.lower_is_better:
        return verdict_of(found.draws, PERPLEXITY, lower=True, is_factor=True)
    points = LIMITS["similarity"] if found.quality.metric == "cosine" else POINTS
    return verdict_of(found.draws, points * metric.most, lower=False, is_factor=False)


def _finite(values: Floats) -> float | None:
    return round(float(values[0]), DIGITS) if np.isfinite(values[0]) else None
