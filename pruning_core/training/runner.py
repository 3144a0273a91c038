"""Training as a stage of a run, with the run's model, rows, device, clock and scratch folder."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pruning_core.data.rows import Rows
from pruning_core.evidence.context import Context
from pruning_core.machine.environment import versions
from pruning_core.report.healing import HealingReport
from pruning_core.report.training import TrainingReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.healing import HealRecipe, draw_healing_set, healed, own_texts, schedule_of
from pruning_core.training.judging import Guard
from pruning_core.training.recipe import FirstChoice, Recipe, prunable_weights
from pruning_core.training.schedule import ByEpochs
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
        texts: What the dense model has written to heal students with; empty until the first is healed.
    """

    spec: PruneSpec
    ctx: Context
    rows: Rows
    scratch: Path | None
    texts: list[array[int]] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType] - array has no items to name

    def train_(
        self,
        student: PreTrainedModel,
        recipe: Recipe,
        options: TrainingOptions,
        *,
        name: str,
        first: FirstChoice | None = None,
        refit: Callable[[PreTrainedModel], PreTrainedModel] = lambda chosen: chosen,
    ) -> tuple[PreTrainedModel, TrainingReport]:
        """Train a student in place.

        Args:
            student: A model whose prunable weights are its own or the dense model's.
            recipe: Makes the method's constraint.
            options: The method's training options.
            name: Name of this training, unique in the run; its folder's name.
            first: A training that chooses the weights first; None: there is none.
            refit: Makes the model that goes on, from the one that holds the choice.

        Returns:
            The trained model: after a choice, another one. And the report.

        Raises:
            DatasetInvalid: There are too few rows.
        """
        training_set = TrainingSet.draw(
            self.ctx.task_model,
            self.rows,
            options,
            max_length=self.spec.calibration.max_length,
            seed=self.spec.seed,
            micro_tokens=self._micro_tokens,
        )
        model, steps = self.ctx.task_model, training_set.all_steps(options)
        dtype = self.ctx.evidence.dtype
        job = TrainingJob(model.with_model(student), model, training_set, recipe, options, dtype, None)
        with self.ctx.clock.stage("train", steps) as step:
            if first is None:
                return student, self._train(job, steps, name, step)
            choosing = max(1, round(first.share * steps))
            report = self._train(replace(job, recipe=first.recipe, options=first.options), choosing, f"{name}-choice", step)
            _cut_(student, first.recipe)
            tuned = refit(student)
            if choosing < steps:
                # Another order than before: with half an epoch each, both would see the same rows.
                others = replace(training_set, seed=training_set.seed + 1)
                job = replace(job, student=model.with_model(tuned), training_set=others)
                tuning = self._train(job, steps - choosing, name, lambda done: step(choosing + done))
                report = report.followed_by(tuning)
            return tuned, report

    def _train(self, job: TrainingJob, steps: int, name: str, on_step: Callable[[int], None]) -> TrainingReport:
        """Take a number of steps, with a schedule of their own."""
        own = job.training_set
        schedule = ByEpochs.of(job.options, own.steps(job.options.batch_size), steps)
        job = replace(job, schedule=schedule, checkpoints=self._checkpoints(own, name))
        return train(job, training_devices(self.ctx.task_model.device), on_step)

    def heal_(self, student: PreTrainedModel, *, keeps_zeros: bool, name: str) -> HealingReport:
        """Heal a student in place: train it towards the dense model's outputs, for as long as the request's budget.

        Args:
            student: A pruned and repaired model.
            keeps_zeros: Whether the method sets weights to zero, which stay zero.
            name: Name of the target, unique in the run.

        Raises:
            DatasetInvalid: There are too few samples.
        """
        spec, ctx, began = self.spec, self.ctx, time.perf_counter()
        heal, device = spec.recovery.heal, ctx.task_model.device
        dtype = ctx.evidence.dtype
        budget_s, schedule = 60 * heal.minutes, schedule_of(spec)
        place = f"heal-{name}"
        with ctx.clock.stage("train", heal.steps or math.ceil(budget_s)) as step:

            def tell(done: int = 0) -> None:
                step(done if heal.steps else min(math.ceil(budget_s), int(time.perf_counter() - began)))

            texts = self._own_texts(dtype, tell)
            training_set = draw_healing_set(ctx, spec, self.rows, texts, micro_tokens=self._micro_tokens)
            job = TrainingJob(
                student=ctx.task_model.with_model(student),
                teacher=ctx.task_model,
                training_set=training_set,
                recipe=HealRecipe(keeps_zeros),
                options=heal.training(spec.task.type),
                dtype=dtype,
                checkpoints=self._checkpoints(training_set, place),
                schedule=schedule,
                guard=Guard(),
                spent_s=time.perf_counter() - began,
            )
            report = train(job, training_devices(device), tell)
        return healed(report, training_set, heal, seconds=time.perf_counter() - began)

    @property
    def _micro_tokens(self) -> int:
        return max(len(own.real.flatten()) for own in self.ctx.evidence.calibration.batches)

    def _own_texts(self, dtype: torch.dtype, tell: Callable[[], None]) -> list[array[int]]:
        """Return texts of the dense model's own: written once for all targets, and kept for a later attempt."""
        if not self.texts:
            kept = None if self.scratch is None else self.scratch / f"texts-{self._digest()[:16]}.safetensors"
            self.texts.extend(own_texts(self.ctx, self.spec, kept, dtype, tell))
        return list(self.texts)

    def _checkpoints(self, training_set: TrainingSet, name: str) -> Checkpoints | None:
        if self.scratch is None:
            return None
        rows = training_set.encoded.fingerprint(range(len(training_set.encoded.lengths)))
        return Checkpoints(self.scratch / name, self._digest(name, rows))

    def _digest(self, *more: str) -> str:
        """Hash what all trainings of the run depend on, and more."""
        facts = (
            self.spec.model_dump_json(),
            *more,
            self.ctx.evidence.calibration.fingerprint,
            str(self.ctx.task_model.device.type),
            str(sorted(versions().items())),
        )
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _cut_(student: PreTrainedModel, recipe: Recipe) -> None:
    """Set to zero what a choice has not kept; a training that has diverged leaves the weights that it began with."""
    constraint = recipe.constraint(prunable_weights(student))
    constraint.begin(1)
    constraint.finish()


def training_warnings(training: TrainingReport | None) -> list[str]:
    """Return warnings for a training that ended early or found nothing better."""
    if training is None:
        return []
    found: list[str] = []
    if training.ending != "finished":
        found.append(f"training ended after {training.steps} of {training.planned_steps} steps: {training.reason}")
    if training.best_step == 0:
        found.append("training found nothing better, on held-out rows, than what it began with; that was kept")
    travelled = [point.measures["travel"] for point in training.points if "travel" in point.measures]
    if travelled and max(travelled) < 1:
        found.append(
            f"under the Lasso the learning rate could move a segment by {max(travelled):.2g} of its norm at the threshold: its "
            "gradient had little say in which segments stay. More epochs or a larger "
            "method.training.lasso_learning_rate give it more"
        )
    return found


def healing_warnings(healing: HealingReport | None) -> list[str]:
    """Return warnings for a healing that diverged or ended early, or found nothing better."""
    if healing is None:
        return []
    if healing.best_step == 0:
        return [healing.words]
    if healing.ending == "finished":
        return []
    said = (
        f"healing ended after {healing.steps} of {healing.planned_steps} steps: {healing.reason}; the weights of step "
        f"{healing.best_step} were the best on held-out samples, and were kept"
    )
    return [said]
