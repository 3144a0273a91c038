"""Fidelity of a mask: divergence of a repaired model from the dense one, on calibration samples that the repair has not seen.

No labels are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Context
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.shapes import Float
from pruning_core.spec.prune import RecoverySpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch

# Share of the calibration samples that a trial repair uses; the others are held out to judge it.
_FITTED = 0.75


class Fidelity:
    """Divergences of masks, by trial repairs. The dense model's outputs are computed only once, if they can be kept."""

    def __init__(self, ctx: Context, recovery: RecoverySpec) -> None:
        """Store the run's evidence and its kind of recovery."""
        self._ctx, self._recovery = ctx, recovery
        samples = ctx.evidence.calibration.samples
        self._fitted = max(1, int(_FITTED * samples))
        self._first_unseen = min(self._fitted, samples - 1)  # a single sample has to do for both
        self._dense: dict[int, Tensor] = {}

    def divergence(self, mask: Mask) -> float:
        """Repair a model with this mask on some samples, and compare its outputs with the dense model's on the others.

        The task's family compares the outputs: classes by KL divergence, scores and embeddings by squared error.
        """
        ctx = self._ctx
        student = clone(ctx.task_model.model)
        with ctx.clock.stage("search"):
            prune_and_recover_(
                adapt(student), mask, ctx.evidence, self._recovery, on_sublayer=lambda _done: None, samples=self._fitted
            )
            return self._apart(ctx.task_model.with_model(student))

    def _apart(self, model: TaskModel) -> float:
        """Return the mean divergence of a model from the dense one on the samples that no trial repair has seen."""
        dense, total, count = self._ctx.task_model, 0.0, 0
        with torch.inference_mode():
            for index, cpu_batch in enumerate(self._ctx.evidence.calibration.batches):
                unseen = cpu_batch.rows >= self._first_unseen
                if not bool(unseen.any()):
                    continue
                batch = cpu_batch.to(dense.device)
                ours, theirs = model.outputs(batch.inputs).float(), self._dense_outputs(index, batch)
                total += float(dense.family.divergences(ours, theirs, batch)[unseen.to(dense.device)].sum())
                count += int(unseen.sum())
        return total / count

    def _dense_outputs(self, index: int, batch: Batch) -> Float[Tensor, "b ..."]:
        """Return the dense model's outputs on a batch: kept from the first time, or computed again if too large to keep."""
        kept = self._dense.get(index)
        if kept is None:
            kept = self._ctx.task_model.outputs(batch.inputs).float()
            if kept.ndim == 2:
                self._dense[index] = kept
        return kept
