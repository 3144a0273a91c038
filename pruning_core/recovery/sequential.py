"""Recovery: a fit of the output projection of each pruned sublayer to the dense model, from the first layer to the last.

The student's inputs come from the pruned and repaired layers below. The target is the dense model's residual stream,
``B = (x_dense + f_dense(x_dense)) - x_student``. Statistics are taken over real tokens only. Each sublayer runs once: no layer
is run again to read a statistic.

The last sublayer before removed blocks, or before an attention that is removed alone, stands in for them. It is fitted to the
residual sum of the last removed sublayer, and takes over the norm that follows that sum, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruning_core.arch.adapter import ModelAdapter, adapt
from pruning_core.arch.cut import drop_sublayers_, slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import held
from pruning_core.arch.sublayer import Sublayer
from pruning_core.evidence.context import Evidence
from pruning_core.machine.precision import products_in
from pruning_core.recovery.solve import repair_
from pruning_core.recovery.streams import Streams
from pruning_core.report.report import SublayerReport
from pruning_core.spec.prune import RecoverySpec


def prune_and_recover_(
    student: ModelAdapter,
    mask: Mask,
    evidence: Evidence,
    spec: RecoverySpec,
    *,
    on_sublayer: Callable[[int], None],
    samples: int | None = None,
) -> tuple[SublayerReport, ...]:
    """Slice the student to the mask, sublayer by sublayer. Each is repaired before the statistics of the next are taken.

    Args:
        student: A clone of the dense model; changed in place.
        mask: The units that stay.
        evidence: Dense model and calibration batches.
        spec: Kind of recovery, solver, and share of held-out samples.
        on_sublayer: Called after each sublayer with the number of finished sublayers.
        samples: Number of samples to use, from the first; None: all. The last ``holdout`` share of them is held out.

    Returns:
        One report for each sublayer, in order.
    """
    if spec.kind == "none":
        slice_(student.model, mask)
        on_sublayer(len(mask.kept))
        return tuple(SublayerReport(solver="none", status="skipped", iterations=0) for _ in mask.kept)
    used = evidence.calibration.samples if samples is None else min(samples, evidence.calibration.samples)
    first_judge = used - max(1, round(used * spec.holdout))
    reports: dict[int, SublayerReport] = {}
    survivors = drop_sublayers_(student.model, mask)
    ends = [following - 1 for following in survivors[1:]] + [len(mask.kept) - 1]
    device, dense, paths, reached = student.model.device, evidence.dense.sublayers, evidence.dense.paths, -1
    with torch.no_grad(), products_in(evidence.dtype, device), evidence.states.cache() as cache:
        streams = Streams(evidence, cache, samples=used, first_judge=first_judge)
        for index, end, pruned in zip(survivors, ends, adapt(student.model).sublayers, strict=True):
            for passed in range(reached + 1, end):
                with held(dense[passed].block):
                    streams.skip(passed, dense[passed])
            reached = end
            if index == evidence.dense.crossing:
                streams.cross(evidence.dense, adapt(student.model))
            with held(dense[end].block, pruned.block):
                pruned.slice_(mask.indices(index).to(device))
                if end != index:
                    _inherit_norm_(pruned, dense[end])
                layer = dense[index].layer
                if not pruned.group.repairable:
                    streams.pass_on(end, dense[end], pruned, layer)
                    on_sublayer(end + 1)
                    continue
                gathered = streams.gather(end, dense[end], pruned, layer)
                fit, judge = (gram.checked(paths[dense[index].output]) for gram in gathered)
                with products_in(torch.float32, device):
                    reports[index] = repair_(pruned, fit, judge, spec)
                streams.advance(pruned, layer)
            on_sublayer(end + 1)
    nothing = SublayerReport(solver="none", status="skipped", iterations=0)
    return tuple(reports.get(index, nothing) for index in range(len(mask.kept)))


def _inherit_norm_(pruned: Sublayer, dense: Sublayer) -> None:
    """Copy the norm after the last removed sublayer to the sublayer that stands in for it.

    The latter is fitted to the residual sum before that norm.
    """
    if pruned.after is not None and dense.after is not None:
        for name, parameter in dense.after.named_parameters():
            setattr(pruned.after, name, parameter)
