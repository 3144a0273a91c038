"""Recovery: layer by layer, the output projection of each pruned sublayer is refitted to the dense model.

Student inputs are those of the already pruned and repaired layers below; the target is the dense model's residual stream,
``B = (x_dense + f_dense(x_dense)) - x_student``. Statistics run over real tokens only. Each half of a block runs once: no layer
is run again to read a statistic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruning_core.arch.encoder import EncoderAdapter
from pruning_core.evidence import Evidence
from pruning_core.masks import Mask
from pruning_core.precision import products_in
from pruning_core.recovery.solve import repair_
from pruning_core.recovery.streams import Streams
from pruning_core.report import SublayerReport
from pruning_core.spec import RecoverySpec


def prune_and_recover_(
    student: EncoderAdapter,
    mask: Mask,
    evidence: Evidence,
    spec: RecoverySpec,
    *,
    on_sublayer: Callable[[int], None],
    samples: int | None = None,
) -> tuple[SublayerReport, ...]:
    """Slice the student to the mask, sublayer by sublayer, repairing each before the next one's statistics.

    Args:
        student: A clone of the dense model; changed in place.
        mask: What stays.
        evidence: Dense model and calibration batches.
        spec: Kind and solver.
        on_sublayer: Told after each sublayer how many are done.
        samples: Use only the first so many samples; all of them when None. The last ``holdout`` share of them judges.

    Returns:
        One report a sublayer, in order.
    """
    if spec.kind == "none":
        for index, sublayer in enumerate(student.sublayers):
            sublayer.slice_(mask.indices(index).to(sublayer.output.weight.device))
            on_sublayer(index + 1)
        return tuple(SublayerReport(solver="none", status="skipped", iterations=0) for _ in student.sublayers)
    used = evidence.calibration.samples if samples is None else min(samples, evidence.calibration.samples)
    first_judge = used - max(1, round(used * spec.holdout))
    reports: list[SublayerReport] = []
    device = student.model.device
    with torch.no_grad(), products_in(evidence.dtype, device), evidence.states.shelf() as shelf:
        streams = Streams(evidence, shelf, samples=used, first_judge=first_judge)
        for index, (dense, pruned) in enumerate(zip(evidence.dense.sublayers, student.sublayers, strict=True)):
            pruned.slice_(mask.indices(index).to(pruned.output.weight.device))
            fit, judge = streams.gather(index, dense, pruned)
            with products_in(torch.float32, device):
                reports.append(repair_(pruned, fit, judge, spec))
            streams.advance(pruned)
            on_sublayer(index + 1)
    return tuple(reports)
