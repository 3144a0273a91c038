"""Training as a stage of a run: what a method asks for, with the run's model, rows, device, clock and scratch folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from pruning_core.arch.encoder import adapt
from pruning_core.arch.stored import check_trainable
from pruning_core.data import Rows
from pruning_core.environment import versions
from pruning_core.methods.base import Context
from pruning_core.precision import matmul_dtype
from pruning_core.recovery.sparsify import prunable
from pruning_core.spec import PruneSpec
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.constraint import Constraint, Weights
from pruning_core.training.lessons import Lessons
from pruning_core.training.loop import Setting, Trainer
from pruning_core.training.trainable import make_trainable_
from pruning_core.training_report import TrainingReport
from pruning_core.training_spec import TrainingOptions

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Recipe(Protocol):
    """What makes a method's constraint; a value that can be sent to other processes."""

    def constraint(self, weights: Weights) -> Constraint:
        """Make the constraint of the prunable weights, which are given by module path."""
        ...


@dataclass(frozen=True, slots=True)
class School:
    """What every training of a run has in common.

    Attributes:
        spec: What was asked for.
        ctx: Dense model, evidence and clock.
        rows: The training split.
        scratch: Folder that outlives this attempt; nothing is kept when None.
    """

    spec: PruneSpec
    ctx: Context
    rows: Rows
    scratch: Path | None

    def teach_(self, student: PreTrainedModel, recipe: Recipe, options: TrainingOptions, *, name: str) -> TrainingReport:
        """Train a student in place.

        Args:
            student: A model whose prunable weights are its own or the dense model's.
            recipe: Makes the method's constraint.
            options: The method's.
            name: Of this training among those of the run, as a folder's name.

        Raises:
            DatasetInvalid: There are too few rows.
        """
        spec, ctx = self.spec, self.ctx
        lessons = Lessons.draw(
            ctx.task_model,
            self.rows,
            options,
            max_length=spec.calibration.max_length,
            seed=spec.seed,
            micro_tokens=max(len(own.real.flatten()) for own in ctx.evidence.calibration.batches),
        )
        task_model = ctx.task_model.with_model(student)
        parameters = make_trainable_(task_model, lessons.batches(lessons.held_out[:1])[0])
        with ctx.clock.stage("train", options.epochs * lessons.steps(options.batch_size)) as step:
            setting = Setting(
                lessons=lessons,
                options=options,
                dtype=matmul_dtype(spec.calibration.precision, ctx.task_model.device),
                checkpoints=self._checkpoints(lessons, name),
                on_step=step,
            )
            constraint = recipe.constraint(prunable_weights(student))
            return Trainer(task_model, ctx.task_model, parameters, constraint, setting).run()

    def _checkpoints(self, lessons: Lessons, name: str) -> Checkpoints | None:
        if self.scratch is None:
            return None
        calibration = self.ctx.evidence.calibration
        facts = (
            self.spec.model_dump_json(),
            name,
            lessons.encoded.fingerprint((*lessons.train, *lessons.held_out)),
            calibration.fingerprint,
            str(self.ctx.task_model.device.type),
            str(sorted(versions().items())),
        )
        return Checkpoints(self.scratch / name, hashlib.sha256("\n".join(facts).encode()).hexdigest())


def prunable_weights(student: PreTrainedModel) -> Weights:
    """Give the weights of every prunable linear by its module path, output-major.

    Raises:
        UnsupportedArchitecture: They are stored the other way round.
    """
    adapter = adapt(student)
    check_trainable(adapter.family)
    names: dict[int, str] = {id(module): name for name, module in student.named_modules()}
    return {names[id(linear)]: cast("nn.Parameter", linear.weight) for linear in prunable(adapter)}


def training_warnings(training: TrainingReport | None) -> list[str]:
    """Say what a training did not do."""
    if training is None:
        return []
    found: list[str] = []
    if training.ending != "finished":
        found.append(f"training ended after {training.steps} of {training.planned_steps} steps: {training.reason}")
    if training.best_step == 0:
        found.append("training found nothing better, on held-out rows, than what it began with; that was kept")
    return found
