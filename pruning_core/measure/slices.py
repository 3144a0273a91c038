"""The metric on slices of the rows, by columns that the user names: those that lost the most first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruning_core.data.rows import Rows, Value
from pruning_core.measure.certainty import DIGITS, rows_of
from pruning_core.measure.paired import CONFIDENCE, draw
from pruning_core.report.where import SliceReport
from pruning_core.spec.labels import number_of
from pruning_core.spec.metrics import METRICS
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import finding_of
from pruning_core.tasks.base import Judged
from pruning_core.tasks.scoring import Classes, Decisions, Replies, Scores, metric_of

Places = NDArray[np.int64]

MOST_VALUES = 50
# Numbers with more values than this are measured, and no codes: quarters of the rows by size say more.
MOST_NUMBERS = 12
QUARTERS = 4


def by_columns(spec: PruneSpec, judged: Judged, rows: Rows) -> list[SliceReport]:
    """Compute the metric on the slices of each named column, the worst first; columns in the order of the request.

    Slices with an interval are ordered by how much they lost; those that are too small for one follow, as chance alone would
    put them in front.
    """
    found: list[SliceReport] = []
    for column, values in rows.slices.items():
        groups = groups_of(values)
        reports = [slice_of(spec, judged, places, name, column=column) for name, places in groups]
        lower = METRICS[spec.task.metric].lower_is_better
        found += sorted(reports, key=lambda own: (own.low is None, -_lost(own, lower=lower)))
    return found


def groups_of(values: Sequence[Value]) -> list[tuple[str, Places]]:
    """Group rows by the values of a column, each with a name and the places of its rows.

    Numbers with many values are grouped by quarters; of texts with many values, those with the most rows stay.
    """
    numbers = _numbers(values)
    present = np.array([value is not None for value in values], dtype=bool)
    if numbers is not None and len(np.unique(numbers[present])) > MOST_NUMBERS:
        places = np.flatnonzero(present)
        found = [(_range(numbers[places[group]]), places[group]) for group in quarters(numbers[places])]
    else:
        found = _values([_text(value) for value in values] if numbers is None else [*map(_number, numbers)], present)
    if not present.all():
        found.append(("no value", np.flatnonzero(~present)))
    return found


def quarters(numbers: NDArray[Any]) -> list[Places]:
    """Return the places of the numbers of each quarter, the smallest first; equal numbers share one, so there may be fewer."""
    inner = np.unique(np.quantile(numbers, np.arange(1, QUARTERS) / QUARTERS, method="lower"))
    quarter = np.searchsorted(inner, numbers, side="left")
    groups = (np.flatnonzero(quarter == place) for place in range(len(inner) + 1))
    return [group for group in groups if len(group)]


def slice_of(spec: PruneSpec, judged: Judged, rows: Places, name: str, column: str | None = None) -> SliceReport:
    """Compute the metric of both models on some of the rows, and the interval of the difference, or why there is none."""
    finding = finding_of(spec.task.type, spec.task.metric)
    part = replace(judged, dense=taken(judged.dense, rows), pruned=taken(judged.pruned, rows))
    dense, pruned = (_finite(spec, finding, own) for own in (part.dense, part.pruned))
    bare = SliceReport(name=name, column=column, rows=len(rows), dense=dense, pruned=pruned)
    form = rows_of(spec.task.metric, finding, part)
    if dense is None or pruned is None:
        return bare.but(no_interval=f"{spec.task.metric} is undefined on these rows: too few, or all alike")
    draws = "the metric has no form by rows" if form is None else draw(form, spec.seed)
    if isinstance(draws, str):
        return bare.but(no_interval=draws)
    ends = draws.range_of(1.0, CONFIDENCE)
    return bare.but(low=round(ends.low, DIGITS), high=round(ends.high, DIGITS))


def taken(finding: object, rows: Places) -> object | None:
    """Return a finding on some of its rows; None for findings that are not made of rows."""
    index = torch.from_numpy(rows)
    match finding:
        case Classes():
            return Classes(finding.logits[index], finding.wanted[index])
        case Decisions():
            return Decisions(finding.found[index], finding.wanted[index])
        case Scores():
            return Scores(finding.found[index], finding.wanted[index])
        case Replies():
            return Replies([finding.found[int(row)] for row in rows], [finding.wanted[int(row)] for row in rows])
        case _:
            return None


def _lost(own: SliceReport, *, lower: bool) -> float:
    if own.dense is None or own.pruned is None:
        return -np.inf
    return (own.pruned - own.dense) if lower else (own.dense - own.pruned)


def _numbers(values: Sequence[Value]) -> NDArray[np.float64] | None:
    """Return a column of numbers, also such as are written as text, with NaN for none; None where a value is no number."""
    found = [number_of(value) if isinstance(value, str) else value for value in values]
    if any(number is None and value is not None for number, value in zip(found, values, strict=True)):
        return None
    if all(value is None for value in values):
        return None
    return np.array([np.nan if number is None else number for number in found], dtype=np.float64)


def _values(names: Sequence[str], present: NDArray[np.bool_]) -> list[tuple[str, Places]]:
    counts = Counter(name for name, there in zip(names, present, strict=True) if there)
    # Of as many rows, the first name in the alphabet: which ones stay does not hang on the order of the rows.
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    kept = ordered if len(ordered) <= MOST_VALUES else ordered[: MOST_VALUES - 1]
    place_of = {name: place for place, name in enumerate(kept)}
    group = np.array([place_of.get(name, len(kept)) for name in names])
    group[~present] = -1
    found = [(name, np.flatnonzero(group == place)) for name, place in place_of.items()]
    if len(kept) < len(ordered):
        found.append((f"others ({len(ordered) - len(kept):,} values)", np.flatnonzero(group == len(kept))))
    return found


def _text(value: Value) -> str:
    return value if isinstance(value, str) else "" if value is None else _number(value)


def _number(value: float) -> str:
    return f"{value:.6g}"


def _range(numbers: NDArray[np.float64]) -> str:
    low, high = (_number(float(end)) for end in (numbers.min(), numbers.max()))
    return low if low == high else f"{low} to {high}"


def _finite(spec: PruneSpec, finding: str, own: object) -> float | None:
    value = metric_of(spec.task.metric, finding)(own)
    return round(value, DIGITS) if np.isfinite(value) else None
