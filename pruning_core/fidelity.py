"""How far a repaired model is from the dense one, on calibration samples that its repair has not seen. No labels are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.arch.encoder import adapt, clone
from pruning_core.evaluate import collect_outputs
from pruning_core.masks import Mask
from pruning_core.methods.base import Context
from pruning_core.models import TaskModel
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.shapes import Float
from pruning_core.spec import RecoverySpec

# Share of the calibration samples that a trial repair uses; the others judge it.
_FITTED = 0.75


class Fidelity:
    """Judges masks by trial repairs; the dense model's outputs are computed once."""

    def __init__(self, ctx: Context, recovery: RecoverySpec) -> None:
        """Take a run's evidence and its kind of repair."""
        self._ctx, self._recovery = ctx, recovery
        self._fitted = max(1, int(_FITTED * ctx.evidence.calibration.samples))
        self._dense: Tensor | None = None

    def divergence(self, mask: Mask) -> float:
        """Repair a model with this mask on some samples, and compare its outputs with the dense model's on the others.

        Classes are compared by KL divergence, scores and embeddings by squared error.
        """
        ctx = self._ctx
        student = clone(ctx.task_model.model)
        with ctx.clock.stage("search"):
            prune_and_recover_(
                adapt(student), mask, ctx.evidence, self._recovery, on_sublayer=lambda _done: None, samples=self._fitted
            )
            if self._dense is None:
                self._dense = self._outputs(ctx.task_model)
            ours, theirs = self._outputs(ctx.task_model.with_model(student)), self._dense
        if ctx.task_model.task_type == "text-classification":
            logs, reference = ours.log_softmax(-1), theirs.log_softmax(-1)
            return float((reference.exp() * (reference - logs)).sum(-1).mean())
        return float((ours - theirs).square().sum(-1).mean())

    def _outputs(self, model: TaskModel) -> Float[Tensor, "n o"]:
        """Run the batches, and keep the samples that no trial repair has seen."""
        calibration = self._ctx.evidence.calibration
        with torch.inference_mode():
            return collect_outputs(model, calibration.batches, calibration.samples, lambda _done: None)[self._fitted :]
