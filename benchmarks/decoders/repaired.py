"""Students of what peers decide, as they come and with the core's repair of output projections.

Where a structure is a mask alone, `pruning_core.recovery` makes the student. What it has no place for (biases, attentions that
are left out alone, a projected residual stream) is done here sublayer by sublayer: statistics, target and solution are those of
the core's repair (`repair_`: a ridge towards the dense weights, and a guard on held-out samples).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers.slicegpt import Projected, Sliced, project_
from benchmarks.decoders.peers.structure import Structure
from pruning_core.arch.adapter import ModelAdapter, adapt, clone
from pruning_core.arch.linear import bias_of, set_, weight_of
from pruning_core.arch.sublayer import Sublayer
from pruning_core.machine.precision import products_in
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.solve import repair_
from pruning_core.spec.prune import RecoverySpec
from pruning_core.stats.gram import GramSums
from pruning_core.tasks.base import TaskModel

Change = Callable[[int, Sublayer], Sublayer]
AS_IT_COMES = RecoverySpec(kind="none")


def student_of(case: Case, decided: Structure | Sliced, *, repair: bool) -> TaskModel:
    """Return the student of a decision.

    Args:
        case: The dense model and its calibration samples.
        decided: What a peer has decided.
        repair: Whether the core's default repair follows.
    """
    student = clone(case.dense.model)
    recovery = case.spec.recovery if repair else AS_IT_COMES
    if isinstance(decided, Sliced):
        if repair:
            _repaired_(case, adapt(student), lambda index, own: _projecting(own, decided, index), recovery, decided)
        project_(adapt(student), decided)
    elif not decided.alone and not decided.biases:
        prune_and_recover_(adapt(student), decided.mask, case.evidence, recovery, on_sublayer=lambda _done: None)
    else:
        change: Change = lambda index, own: _cut_(own, decided, index)  # noqa: E731 - a name for its type
        if repair:
            _repaired_(case, adapt(student), change, recovery, None, frozen=decided.alone)
        else:
            for index, own in enumerate(adapt(student).sublayers):
                change(index, own)
    return case.dense.with_model(student)


def _cut_(own: Sublayer, decided: Structure, index: int) -> Sublayer:
    """Cut a sublayer to its units, and add its bias. An attention without units keeps one, whose output weights are zero."""
    kept = decided.mask.indices(index)
    gone = own.signature.kind == "head" and not len(kept)
    own.slice_(kept if len(kept) or not gone else torch.zeros(1, dtype=torch.int64))
    bias = decided.biases.get(index)
    if gone or bias is not None:
        weights = weight_of(own.output)
        before = bias_of(own.output)
        added = bias if before is None or bias is None else before + bias
        set_(own.output, torch.zeros_like(weights) if gone else weights, added)
    return own


def _projecting(own: Sublayer, decided: Sliced, index: int) -> Sublayer:
    """Return a sublayer with weights of its own, whose residual sum is projected."""
    own.slice_(torch.arange(own.units))
    return replace(own, after=Projected(decided.after[index])) if index < len(decided.after) else own


def _repaired_(
    case: Case,
    student: ModelAdapter,
    change: Change,
    recovery: RecoverySpec,
    sliced: Sliced | None,
    frozen: frozenset[int] = frozenset(),
) -> None:
    """Change the sublayers one by one; repair each before the next sees its outputs.

    Args:
        case: The dense model and its calibration samples.
        student: A clone of the dense model; changed in place.
        change: Changes a sublayer in place, and returns it as it runs from then on.
        recovery: The repair.
        sliced: The bases of a projected stream, whose first one the embeddings are projected by.
        frozen: Sublayers that have nothing to repair.
    """
    dense, batches = case.evidence.dense, case.evidence.calibration.batches
    samples = case.evidence.calibration.samples
    first_judge = samples - max(1, round(samples * recovery.holdout))
    device, dtype = student.model.device, case.evidence.dtype
    with torch.no_grad(), products_in(dtype, device):
        traces = [dense.trace(batch.inputs) for batch in batches]
        teacher = [trace.hidden for trace in traces]
        start: nn.Module = nn.Identity() if sliced is None else Projected(sliced.first)
        pupil: list[Tensor] = [start(own) for own in teacher]
        for index, (original, found) in enumerate(zip(dense.sublayers, student.sublayers, strict=True)):
            own = change(index, found)
            sums = [GramSums(own.width, own.hidden, dtype, device) for _ in range(2)]
            for at, (batch, trace) in enumerate(zip(batches, traces, strict=True)):
                context = trace.contexts[original.layer]
                total = original.total(teacher[at], original.features(teacher[at], context))
                teacher[at] = original.close(total)
                features, target = own.features(pupil[at], context), total - pupil[at]
                for gram, judged in zip(sums, (False, True), strict=True):
                    rows = (batch.real & ((batch.rows >= first_judge) == judged)[:, None]).flatten().nonzero().flatten()
                    gram.add_(features.flatten(0, 1), target.flatten(0, 1), rows)
            if index not in frozen:
                fit, judge = (gram.result() for gram in sums)
                with products_in(torch.float32, device):
                    repair_(own, fit, judge, recovery)
            for at, trace in enumerate(traces):
                pupil[at] = own.forward(pupil[at], trace.contexts[original.layer])
