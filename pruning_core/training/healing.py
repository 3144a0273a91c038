"""Healing: the training set, the schedule and the constraint of a pruned model that learns to answer as the dense one does.

The loss is the divergence of the outputs from the dense model's (Hinton et al. 2015, arXiv 1503.02531), over the user's rows
and, for decoders, texts that the dense model writes itself: what a user's rows say nothing of is forgotten first (healing on
one corpus has taken models below where pruning had left them). Zeros stay zero.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.evidence.context import Context, Evidence, generator
from pruning_core.evidence.writing import write
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.healing import HealingReport, HeldOutReport, taken_away
from pruning_core.report.training import TrainingReport
from pruning_core.spec.healing import HealSpec
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.batch import Encoded, TokenLabelled
from pruning_core.training.constraint import Constraint, Unconstrained, Weights
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.masking import FixedSupport
from pruning_core.training.schedule import ByBudget

# Fewer samples cannot both be learnt from and judged by.
LEAST_SAMPLES = 16
_LEAST_HELD_OUT, _MOST_HELD_OUT = 8, 1024
# Judging more blocks of text than these tokens takes longer than it tells.
_HELD_OUT_TOKENS = 4096
# Texts are written for this share of the budget at most, and no more than so many.
_WRITING, _MOST_TEXTS = 0.15, 4096
_WARMUP = 0.1


@dataclass(frozen=True, slots=True)
class HealRecipe:
    """Makes the constraint: weights that are zero stay zero.

    Attributes:
        keeps_zeros: Whether the method sets weights to zero; otherwise all weights are free.
    """

    keeps_zeros: bool

    def constraint(self, weights: Weights) -> Constraint:
        """Make the constraint."""
        return _Support(weights) if self.keeps_zeros else _Free(weights)


class _Free(Unconstrained):
    phase = "heal"


class _Support(FixedSupport):
    phase = "heal"


def schedule_of(spec: PruneSpec) -> ByBudget:
    """Return the schedule of a request's healing."""
    heal = spec.recovery.heal
    return ByBudget(60 * heal.minutes, heal.steps, heal.judgements, _WARMUP)


def draw_healing_set(ctx: Context, spec: PruneSpec, rows: Rows, texts: list[array[int]], *, micro_tokens: int) -> TrainingSet:
    """Draw the user's rows, tokenise them, add the model's own texts, and hold some of both out.

    Args:
        ctx: Dense model.
        spec: The request.
        rows: Rows of the training split.
        texts: Texts that the dense model wrote; the first of them are held out.
        micro_tokens: Tokens that run through the model at once.

    Raises:
        DatasetInvalid: There are too few samples.
    """
    heal, model = spec.recovery.heal, ctx.task_model
    order: list[int] = torch.randperm(len(rows), generator=generator(spec.seed, "healing rows")).tolist()
    order = order[: heal.max_train_rows]
    encoded = model.family.encode(model, rows.take(order), model.longest(heal.max_length or spec.calibration.max_length))
    count = len(encoded.lengths)
    check_enough(count, joins_rows=model.family.joins_rows)
    most = _HELD_OUT_TOKENS // max(encoded.lengths) if model.family.joins_rows else _MOST_HELD_OUT
    held_out = min(count // 2, max(_LEAST_HELD_OUT, min(most, max(round(heal.holdout * count), 2 * _LEAST_HELD_OUT))))
    if texts:
        encoded = _joined(encoded, texts)
    first = count + _held_out_texts(texts)
    return TrainingSet(
        encoded,
        train=tuple(range(held_out, count)),
        held_out=tuple(range(held_out)),
        seed=spec.seed,
        micro_tokens=micro_tokens,
        written=tuple(range(first, count + len(texts))),
        written_held_out=tuple(range(count, first)),
        written_share=heal.own_share(spec.task.type),
    )


def check_data(spec: PruneSpec, evidence: Evidence) -> None:
    """Refuse before any work to heal on data that is too small, as the calibration samples show where they are all of it.

    Raises:
        DatasetInvalid: It is.
    """
    samples = evidence.calibration.samples - evidence.written
    if samples < spec.calibration.samples:
        check_enough(samples, joins_rows=spec.task.type == "text-generation")


def check_enough(samples: int, *, joins_rows: bool) -> None:
    """Refuse to heal with fewer samples than can be learnt from and judged by.

    Raises:
        DatasetInvalid: There are fewer.
    """
    if samples < LEAST_SAMPLES:
        what = "blocks of text" if joins_rows else "training rows"
        raise DatasetInvalid(
            f"healing needs at least {LEAST_SAMPLES} {what}, half of them to judge by, and there are {samples}: give "
            "more data, or leave recovery.heal out",
            param="recovery.heal",
        )


def _held_out_texts(texts: list[array[int]]) -> int:
    return 0 if not texts else min(len(texts) // 2, max(_LEAST_HELD_OUT, _HELD_OUT_TOKENS // len(texts[0])))


def _joined(encoded: Encoded, texts: list[array[int]]) -> TokenLabelled:
    blocks = [*encoded.columns["input_ids"], *texts]
    return TokenLabelled.unpadded(encoded.tokenizer, blocks, blocks)


def own_texts(
    ctx: Context, spec: PruneSpec, kept: Path | None, dtype: torch.dtype, on_text: Callable[[], None]
) -> list[array[int]]:
    """Let the dense model write texts, or read those that an earlier attempt has written.

    Args:
        ctx: Dense model.
        spec: The request.
        kept: File of the texts of an earlier attempt, or for those of this one; None: keep nothing.
        dtype: Format of matrix products.
        on_text: Called after each batch of texts.
    """
    heal, model = spec.recovery.heal, ctx.task_model
    share = heal.own_share(spec.task.type)
    if share == 0:
        return []
    if kept is not None and (found := _read(kept)) is not None:
        return found
    length = model.longest(heal.max_length or spec.calibration.max_length)
    most, until = _MOST_TEXTS, time.perf_counter() + _WRITING * 60 * heal.minutes
    if heal.steps is not None:  # as many as there is use for, whatever they take
        most = 2 * _LEAST_HELD_OUT + math.ceil(share * heal.steps * heal.training(spec.task.type).batch_size)
        most, until = min(most, _MOST_TEXTS), math.inf
    texts = write(
        model,
        most,
        length,
        generator(spec.seed, "healing texts"),
        lambda _done: on_text(),
        dtype=dtype,
        enough=lambda done: done >= 2 * _LEAST_HELD_OUT and time.perf_counter() >= until,
    )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        save_file({"texts": torch.tensor([list(own) for own in texts])}, partial)
        partial.replace(kept)
    return texts


def _read(kept: Path) -> list[array[int]] | None:
    try:
        with safe_open(kept, framework="pt") as file:
            texts: Tensor = file.get_tensor("texts")
    except (OSError, SafetensorError) as error:
        raise_if_exhausted(error, "texts for healing were read")
        return None
    return [array("l", own) for own in texts.tolist()]


def healed(report: TrainingReport, training_set: TrainingSet, heal: HealSpec, *, seconds: float) -> HealingReport:
    """Make the report of a healing from that of its training."""
    by_step = {point.step: point.measures for point in report.points if point.held_out is not None}
    start, best = by_step.get(0, {}), by_step.get(report.best_step, {})
    spent = sum(phase.seconds for phase in report.phases)
    gained = taken_away(report.held_out_start, report.held_out_best)
    return HealingReport(
        **dict(report),
        minutes=None if heal.steps is not None else heal.minutes,
        seconds=round(seconds, 3),
        written=len(training_set.written) + len(training_set.written_held_out),
        held_out=tuple(
            HeldOutReport(kind=kind, samples=len(rows), start=start.get(kind, 0.0), best=best.get(kind, 0.0))
            for kind, rows in training_set.judged.items()
        ),
        gain_per_minute=60 * gained / max(spent, 1e-9),
    )
