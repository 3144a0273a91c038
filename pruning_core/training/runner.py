"""Training as a stage of a run, with the run's model, rows, device, clock and scratch folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pruning_core.data.rows import Rows
from pruning_core.evidence.context import Context
from pruning_core.machine.environment import versions
from pruning_core.machine.precision import matmul_dtype
from pruning_core.report.training import TrainingReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.recipe import Recipe
from pruning_core.training.together import TrainingJob, train, training_devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TrainingRunner:
    """Trains the students of one run.

    Attributes:
        spec: The request.
        ctx: Dense model, evidence and clock.
        rows: The training split.
        scratch: Folder for checkpoints that outlives this attempt; None: keep nothing.
    """

    spec: PruneSpec
    ctx: Context
    rows: Rows
    scratch: Path | None

    def train_(self, student: PreTrainedModel, recipe: Recipe, options: TrainingOptions, *, name: str) -> TrainingReport:
        """Train a student in place.

        Args:
            student: A model whose prunable weights are its own or the dense model's.
            recipe: Makes the method's constraint.
            options: The method's training options.
            name: Name of this training, unique in the run; its folder's name.

        Raises:
            DatasetInvalid: There are too few rows.
        """
        spec, ctx = self.spec, self.ctx
        training_set = TrainingSet.draw(
            ctx.task_model,
            self.rows,
            options,
            max_length=spec.calibration.max_length,
            seed=spec.seed,
            micro_tokens=max(len(own.real.flatten()) for own in ctx.evidence.calibration.batches),
        )
        job = TrainingJob(
            student=ctx.task_model.with_model(student),
            teacher=ctx.task_model,
            training_set=training_set,
            recipe=recipe,
            options=options,
            dtype=matmul_dtype(spec.calibration.precision, ctx.task_model.device),
            checkpoints=self._checkpoints(training_set, name),
        )
        with ctx.clock.stage("train", training_set.all_steps(options)) as step:
            return train(job, training_devices(ctx.task_model.device), step)

    def _checkpoints(self, training_set: TrainingSet, name: str) -> Checkpoints | None:
        if self.scratch is None:
            return None
        calibration = self.ctx.evidence.calibration
        facts = (
            self.spec.model_dump_json(),
            name,
            training_set.encoded.fingerprint((*training_set.train, *training_set.held_out)),
            calibration.fingerprint,
            str(self.ctx.task_model.device.type),
            str(sorted(versions().items())),
        )
        return Checkpoints(self.scratch / name, hashlib.sha256("\n".join(facts).encode()).hexdigest())


def training_warnings(training: TrainingReport | None) -> list[str]:
    """Return warnings for a training that ended early or found nothing better."""
    if training is None:
        return []
    found: list[str] = []
    if training.ending != "finished":
        found.append(f"training ended after {training.steps} of {training.planned_steps} steps: {training.reason}")
    if training.best_step == 0:
        found.append("training found nothing better, on held-out rows, than what it began with; that was kept")
    return found
