"""Where quality was lost: classes, calibration, lengths, and the rows whose answers changed most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning_core.data.rows import Rows
from pruning_core.measure.certainty import DIGITS
from pruning_core.measure.slices import by_columns, quarters, slice_of, taken
from pruning_core.report.where import (
    CalibrationErrorReport,
    ClassReport,
    ExampleReport,
    SliceReport,
    WhereReport,
)
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import Judged, Observed
from pruning_core.tasks.scoring import Classes, Decisions, Replies, Scores, Texts, reply_overlaps

BINS = 15
_MOST_CLASSES = 100
_LONGEST_TEXT = 300


def where_lost(spec: PruneSpec, judged: Judged, seen: Observed) -> WhereReport | None:
    """Say where quality was lost; None where the task has nothing of all this.

    Args:
        spec: The request.
        judged: The findings of both models on the same rows.
        seen: The rows, and their samples.
    """
    dense, pruned = judged.dense, judged.pruned
    classes: list[ClassReport] = []
    calibration = None
    if isinstance(dense, Classes) and isinstance(pruned, Classes):
        classes = by_class(dense, pruned, seen.rows.names)
        calibration = CalibrationErrorReport(dense=calibration_error(dense), pruned=calibration_error(pruned), bins=BINS)
    found = WhereReport(
        classes=tuple(classes[:_MOST_CLASSES]),
        classes_left_out=max(0, len(classes) - _MOST_CLASSES),
        calibration=calibration,
        slices=(*by_length(spec, judged, seen), *by_columns(spec, judged, seen.rows)),
        examples=tuple(changed_most(spec, judged, seen.rows)),
    )
    return None if found == WhereReport() else found


def by_class(dense: Classes, pruned: Classes, names: Sequence[str]) -> list[ClassReport]:
    """Compute precision and recall of each class that a row has or a model answers; those that lost the most recall first."""
    number = dense.logits.shape[-1]
    wanted = dense.wanted.bincount(minlength=number)
    sides: list[tuple[list[float | None], list[float | None]]] = []
    answered = torch.zeros_like(wanted)
    for own in (dense, pruned):
        given = own.found.bincount(minlength=number)
        right = own.wanted[own.found == own.wanted].bincount(minlength=number)
        answered += given
        sides.append((_shares(right, given), _shares(right, wanted)))
    found = [
        ClassReport(
            name=names[index] if index < len(names) else str(index),
            support=int(wanted[index]),
            dense_precision=sides[0][0][index],
            dense_recall=sides[0][1][index],
            pruned_precision=sides[1][0][index],
            pruned_recall=sides[1][1][index],
        )
        for index in range(number)
        if int(wanted[index]) or int(answered[index])
    ]
    return sorted(found, key=lambda own: (own.pruned_recall or 0.0) - (own.dense_recall or 0.0))


def calibration_error(seen: Classes) -> float:
    """Compute the expected calibration error of the likeliest class, over `BINS` bins of equal width."""
    sure, found = seen.logits.double().softmax(-1).max(-1)
    right = (found == seen.wanted).double()
    places = (sure * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, places, right - sure)
    return round(float(gaps.abs().sum()) / len(right), DIGITS)


def by_length(spec: PruneSpec, judged: Judged, seen: Observed) -> list[SliceReport]:
    """Compute the metric on quarters of the rows by their length; none for tasks whose rows are not judged one by one."""
    lengths = _lengths(spec, seen)
    if lengths is None or taken(judged.dense, np.arange(0)) is None:
        return []
    groups = quarters(lengths[0])
    if len(groups) < 2:
        return []
    return [slice_of(spec, judged, group, _named(lengths[0][group], lengths[1])) for group in groups]


def changed_most(spec: PruneSpec, judged: Judged, rows: Rows) -> list[ExampleReport]:
    """Return the rows whose answers changed most, by how far the models' outputs are apart."""
    answers = _answers(judged.dense, judged.pruned, rows.names)
    if answers is None or not spec.evaluation.examples:
        return []
    apart, wanted, dense, pruned = answers
    order = [int(row) for row in np.argsort(-apart, kind="stable") if apart[row] > 0][: spec.evaluation.examples]
    shown = KINDS[spec.task.type].reads != "image"
    return [
        ExampleReport(
            row=row,
            texts=tuple(_cut(text) for text in rows.texts[row]) if shown else (),
            wanted=_cut(wanted(row)),
            dense=_cut(dense(row)),
            pruned=_cut(pruned(row)),
        )
        for row in order
    ]


Said = Callable[[int], str]


def _answers(dense: object, pruned: object, names: Sequence[str]) -> tuple[NDArray[Any], Said, Said, Said] | None:
    """Return how far apart the answers are, 0 where they are the same; and the right, the dense and the pruned answer."""
    match dense, pruned:
        case Classes(), Classes():
            before, after = (own.logits.double().softmax(-1) for own in (dense, pruned))
            apart = (before - after).abs().amax(-1) * (dense.found != pruned.found)

            def of_class(found: Tensor, sure: Tensor | None = None) -> Said:
                return lambda row: _name(names, int(found[row])) + ("" if sure is None else f" ({float(sure[row].max()):.2f})")

            return apart.numpy(), of_class(dense.wanted), of_class(dense.found, before), of_class(pruned.found, after)
        case Decisions(), Decisions():

            def of_classes(found: Tensor) -> Said:
                return lambda row: ", ".join(_name(names, int(own)) for own in found[row].nonzero()) or "none"

            changed = (dense.found != pruned.found).sum(-1).double()
            return changed.numpy(), of_classes(dense.wanted), of_classes(dense.found), of_classes(pruned.found)
        case Scores(), Scores():

            def of_score(found: Tensor) -> Said:
                return lambda row: f"{float(found[row]):.4g}"

            apart = (dense.found - pruned.found).abs().double()
            return apart.numpy(), of_score(dense.wanted), of_score(dense.found), of_score(pruned.found)
        case Replies(), Replies():
            lost = np.abs(np.array(reply_overlaps(dense)) - np.array(reply_overlaps(pruned)))
            differ = np.array([a != b for a, b in zip(dense.found, pruned.found, strict=True)])
            right: Said = lambda row: " / ".join(dense.wanted[row]) or "no answer"  # noqa: E731 - beside the two others
            return differ * (1e-9 + lost), right, _text(dense.found), _text(pruned.found)
        case Texts(), Texts():
            differ = np.array([float(a != b) for a, b in zip(dense.found, pruned.found, strict=True)])
            return differ, _text(dense.wanted), _text(dense.found), _text(pruned.found)
        case _:
            return None


def _text(found: Sequence[str]) -> Said:
    return lambda row: found[row]


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}\u2026"


def _shares(part: Tensor, whole: Tensor) -> list[float | None]:
    return [
        None if not total else round(own / total, DIGITS)
        for own, total in zip(cast("list[int]", part.tolist()), cast("list[int]", whole.tolist()), strict=True)
    ]


def _lengths(spec: PruneSpec, seen: Observed) -> tuple[NDArray[np.int64], str] | None:
    """Return the length of each row, and its unit: tokens where a row is a sample, else characters; None for images."""
    if KINDS[spec.task.type].reads == "image":
        return None
    lengths = seen.encoded.lengths
    if len(lengths) == len(seen.rows):
        return np.array(lengths), "tokens"
    return np.array([sum(map(len, texts)) for texts in seen.rows.texts]), "characters"


def _named(lengths: NDArray[np.int64], unit: str) -> str:
    return f"{lengths.min():,} to {lengths.max():,} {unit}" if lengths.min() < lengths.max() else f"{lengths.min():,} {unit}"
