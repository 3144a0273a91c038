"""The training loop of all trained tiers: AdamW under a constraint, judged on held-out rows, resumable from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pruning_core.evidence.context import generator
from pruning_core.machine.precision import products_in
from pruning_core.report.training import TrainingPoint, TrainingReport
from pruning_core.spec.training import TrainingOptions
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.constraint import Constraint, Moment
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.group import Alone, Group, summed
from pruning_core.training.history import Curves
from pruning_core.training.objective import Objective
from pruning_core.training.trainable import freeze_, optimiser_for, optimiser_tensors, restore_optimiser_

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Setting:
    """The inputs of a training, besides the models and the constraint.

    Attributes:
        training_set: Training and held-out rows.
        options: The method's training options.
        dtype: Format of matrix products.
        group: The processes that train together.
        checkpoints: Where the state is kept; None: nowhere.
        on_step: Called with the number of steps taken.
    """

    training_set: TrainingSet
    options: TrainingOptions
    dtype: torch.dtype
    group: Group = field(default_factory=Alone)
    checkpoints: Checkpoints | None = None
    on_step: Callable[[int], None] = lambda _done: None


class Trainer:
    """Trains one student in place.

    Args:
        student: The model. It shares no trained parameter with the dense model; see `make_trainable_`.
        teacher: The dense model.
        parameters: The student's trained parameters, by name.
        constraint: The method's constraint.
        setting: All other inputs.
    """

    def __init__(
        self,
        student: TaskModel,
        teacher: TaskModel,
        parameters: dict[str, nn.Parameter],
        constraint: Constraint,
        setting: Setting,
    ) -> None:
        self._student, self._parameters, self._constraint, self._setting = student, parameters, constraint, setting
        options = setting.options
        self._objective = Objective(student, teacher, options)
        self._optimiser = optimiser_for(parameters, learning_rate=options.learning_rate, weight_decay=options.weight_decay)
        self._steps = setting.training_set.all_steps(options)
        self._per_epoch = setting.training_set.steps(options.batch_size)
        self._judge_every = max(1, self._per_epoch // options.judgements)
        self._best: dict[str, Tensor] = {}
        group, held_out = setting.group, setting.training_set.held_out
        naive = self._objective.naive_loss(setting.training_set.batches(held_out))
        self._curves = Curves(max(1, self._steps // 100), naive)
        self._held_out = setting.training_set.batches(held_out[group.rank :: group.world])
        self._resumed_from: int | None = None

    def run(self) -> TrainingReport:
        """Train, from the checkpoint if there is one, and leave the best weights in the model.

        A loss or gradient that is not finite, or a loss that has exploded, ends the training. The best weights until then are
        kept, and the report says so.
        """
        constraint, curves = self._constraint, self._curves
        constraint.begin(self._steps)
        if not self._resume():
            self._judge(0)
            curves.held_out_start = curves.best
            self._save(0)
        order: list[list[int]] = []
        while curves.ending is None and curves.step < self._steps:
            step = curves.step
            epoch, within = divmod(step, self._per_epoch)
            if within == 0 or not order:
                order = self._setting.training_set.epoch(epoch, self._setting.options.batch_size)
            self._step(step, order[within])
            self._setting.on_step(curves.step)
        if curves.ending is None:
            constraint.finish()  # the finished weights were judged at the last step, which ends an epoch
            curves.ending = "finished"
        self._load_best_()
        freeze_(self._student.model)
        self._save(curves.step, finished=True)
        return self._report()

    def _step(self, step: int, rows: Sequence[int]) -> None:
        """Take one step, then judge and save if due."""
        constraint, curves, options = self._constraint, self._curves, self._setting.options
        began = time.perf_counter()
        rate = options.learning_rate * _schedule(step, self._steps, options.warmup)
        moment = Moment(step, self._steps, rate, options.learning_rate)
        constraint.before_forward(moment)
        loss = self._backward(step, rows)
        norm = float(nn.utils.clip_grad_norm_(list(self._parameters.values()), options.max_grad_norm))
        if not math.isfinite(loss) or not math.isfinite(norm):
            curves.diverge(f"the {'loss' if not math.isfinite(loss) else 'gradient'} of step {step + 1} is no number")
            return
        constraint.before_step(moment)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        constraint.after_step(moment)
        ends_epoch = (step + 1) % self._per_epoch == 0
        if ends_epoch:
            constraint.at_epoch((step + 1) // self._per_epoch)
        curves.took(constraint.phase, loss, constraint.measures(), time.perf_counter() - began)
        if curves.ending is None and (ends_epoch or (step + 1) % self._per_epoch % self._judge_every == 0):
            self._judge(step + 1)
        if curves.ending is None:
            self._save(step + 1)

    def _backward(self, step: int, rows: Sequence[int]) -> float:
        """Compute the gradients of a step, summed over all processes, and return the mean loss."""
        setting = self._setting
        for own in self._parameters.values():
            own.grad = torch.zeros_like(own) if own.grad is None else own.grad.zero_()
        total = 0.0
        with ExitStack() as stack:
            if setting.options.dropout:
                device = self._student.device
                stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
                draws = generator(setting.training_set.seed, f"dropout {step} {setting.group.rank}")
                torch.manual_seed(draws.initial_seed())
                self._student.model.train()
                stack.callback(self._student.model.eval)
            for batch in setting.training_set.batches(rows[setting.group.rank :: setting.group.world]):
                loss = self._loss(batch) / len(rows)
                loss.backward()
                total += float(loss.detach())
        setting.group.sum_([own.grad for own in self._parameters.values() if own.grad is not None])
        return summed(setting.group, total, self._student.device)

    def _loss(self, batch: Batch) -> Tensor:
        device = self._student.device
        with products_in(self._setting.dtype, device):
            return self._objective.per_sample(batch.to(device)).sum()

    def _judge(self, step: int) -> None:
        """Compute the loss on the held-out rows, and keep the weights if it is the lowest so far."""
        setting, began = self._setting, time.perf_counter()
        with self._constraint.applied():
            with torch.no_grad():
                total = sum(float(self._loss(batch)) for batch in self._held_out)
            loss = summed(setting.group, total, self._student.device) / len(setting.training_set.held_out)
            point = TrainingPoint(
                step=step,
                phase=self._constraint.phase,
                loss=0,
                held_out=loss if math.isfinite(loss) else None,
                measures=self._constraint.measures(),
            )
            if self._curves.judged(point, ready=self._constraint.ready, patience=setting.options.patience):
                self._best = {name: own.detach().clone() for name, own in self._parameters.items()}
        self._curves.spent(self._constraint.phase, time.perf_counter() - began)

    def _load_best_(self) -> None:
        with torch.no_grad():
            for name, own in self._parameters.items():
                own.copy_(self._best[name])

    def _save(self, step: int, *, finished: bool = False) -> None:
        """Write a checkpoint if one is due; only the first process writes."""
        checkpoints = self._setting.checkpoints
        if checkpoints is None or self._setting.group.rank or not (finished or checkpoints.due()):
            return
        tensors = {f"best/{name}": own for name, own in self._best.items()}
        if not finished:
            tensors |= {f"weight/{name}": own.detach() for name, own in self._parameters.items()}
            tensors |= optimiser_tensors(self._optimiser, self._parameters)
            tensors |= {f"constraint/{name}": own for name, own in self._constraint.tensors().items()}
        checkpoints.save(tensors, self._curves.state(checkpoints.identity, step))

    def _resume(self) -> bool:
        """Resume from a checkpoint of this training; return False if there is none."""
        setting = self._setting
        found = None if setting.checkpoints is None else setting.checkpoints.load()
        # The sum waits until all processes have looked, so the first cannot overwrite the file before. All resume, or none.
        if summed(setting.group, float(found is not None), self._student.device) < setting.group.world or found is None:
            return False
        tensors, state = found
        device = self._student.device
        self._best = {name: tensors[f"best/{name}"].to(device) for name in self._parameters}
        self._curves.restore(state)
        self._resumed_from = state.step
        if state.ending is None:
            prefix = "constraint/"
            own = {name.removeprefix(prefix): value.to(device) for name, value in tensors.items() if name.startswith(prefix)}
            self._constraint.restore(own)
            restore_optimiser_(self._optimiser, self._parameters, tensors, _MOMENTS)
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(tensors[f"weight/{name}"])
        return True

    def _report(self) -> TrainingReport:
        setting, curves = self._setting, self._curves
        assert curves.ending is not None, "the training has ended"
        return TrainingReport(
            rows=len(setting.training_set.train),
            held_out_rows=len(setting.training_set.held_out),
            batch_size=setting.options.batch_size,
            processes=setting.group.world,
            dtype=str(setting.dtype).removeprefix("torch."),
            planned_steps=self._steps,
            steps=curves.step,
            epochs=round(curves.step / self._per_epoch, 3),
            ending=curves.ending,
            reason=curves.reason,
            resumed_from=self._resumed_from,
            best_step=curves.best_step,
            held_out_start=curves.held_out_start,
            held_out_best=curves.best,
            phases=curves.phases(),
            points=tuple(curves.points),
        )


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate's share of its peak: a linear rise to 1, then a linear fall to 0 after the last step."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)
