"""The training loop of all trained tiers: AdamW under a constraint, judged on held-out rows, resumable from a checkpoint."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
from pruning_core.training.judging import Guard, Judges
from pruning_core.training.objective import Objective
from pruning_core.training.schedule import ByEpochs, Schedule
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
        schedule: Length, learning rate and judgements; None: the epochs of the options.
        guard: What weights must be for them to be kept; None: no more than better on average than those before.
        spent_s: Seconds of a budget that were spent before.
    """

    training_set: TrainingSet
    options: TrainingOptions
    dtype: torch.dtype
    group: Group = field(default_factory=Alone)
    checkpoints: Checkpoints | None = None
    on_step: Callable[[int], None] = lambda _done: None
    schedule: Schedule | None = None
    guard: Guard | None = None
    spent_s: float = 0.0

    def scheduled(self) -> Schedule:
        """Return the schedule."""
        if self.schedule is not None:
            return self.schedule
        return ByEpochs.of(self.options, self.training_set.steps(self.options.batch_size))


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
        self._schedule = setting.scheduled()
        self._per_epoch = setting.training_set.steps(options.batch_size)
        self._best: dict[str, Tensor] = {}
        self._start: dict[str, Tensor] = {}
        guard = setting.guard
        judged = self._objective if guard is None else Objective(student, teacher, guard.judged_by(options))
        self._judges = Judges(judged, setting.training_set, setting.group, setting.dtype)
        # A model that is healed has learnt: it is compared with its own start.
        naive = (
            self._objective.naive_loss(setting.training_set.batches(setting.training_set.held_out)) if guard is None else None
        )
        self._curves = Curves(naive)
        self._resumed_from: int | None = None

    def run(self) -> TrainingReport:
        """Train, from the checkpoint if there is one, and leave the best weights in the model.

        A loss or gradient that is not finite, or a loss that has exploded, ends the training. The best weights until then are
        kept, and the report says so.
        """
        constraint, curves, schedule = self._constraint, self._curves, self._schedule
        constraint.begin(schedule.steps)
        if not self._resume():
            self._judge(0)
            curves.held_out_start = curves.best
            self._plan()
            self._save(0)
        curves.every = max(1, schedule.planned // 100)
        order: list[list[int]] = []
        while curves.ending is None and curves.step < schedule.steps:
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

    def _plan(self) -> None:
        """Plan the steps: where a budget decides, by the seconds of the first judgement and of one gradient."""
        curves, step_s = self._curves, 0.0
        if self._schedule.rehearses:
            began = time.perf_counter()
            self._backward(0, self._setting.training_set.epoch(0, self._setting.options.batch_size)[0])
            step_s = self._together(time.perf_counter() - began)
            curves.spent(self._constraint.phase, step_s)
        self._schedule.begin(step_s, self._together(curves.seconds - step_s), self._spent())
        if self._schedule.steps == 0:
            curves.stop(f"the budget has no room for a step, which takes {step_s:.1f} s, and for judging it")

    def _spent(self) -> float:
        """Return the seconds until now, those before the training included; the same in all processes."""
        return self._together(self._setting.spent_s + self._curves.seconds)

    def _together(self, seconds: float) -> float:
        return summed(self._setting.group, seconds, self._student.device) / self._setting.group.world

    def _step(self, step: int, rows: Sequence[int]) -> None:
        """Take one step, then judge and save if due."""
        constraint, curves, options, schedule = self._constraint, self._curves, self._setting.options, self._schedule
        began = time.perf_counter()
        rate = options.learning_rate * schedule.share(step)
        moment = Moment(step, schedule.steps, rate, options.learning_rate)
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
        if (step + 1) % self._per_epoch == 0:
            constraint.at_epoch((step + 1) // self._per_epoch)
        seconds = time.perf_counter() - began
        curves.took(constraint.phase, loss, constraint.measures(), seconds)
        if schedule.rehearses:
            schedule.took(step + 1, self._together(seconds), self._spent())
        if curves.ending is None and schedule.judges_after(step + 1):
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
        """Compute the loss on the held-out rows, and keep the weights if it is the lowest so far, and the guard lets them."""
        setting, began = self._setting, time.perf_counter()
        with self._constraint.applied():
            lost = self._judges.losses()
            means = {kind: float(own.mean()) for kind, own in lost.items()}
            loss = statistics.fmean(means.values())
            self._start = self._start or lost
            point = TrainingPoint(
                step=step,
                phase=self._constraint.phase,
                loss=0,
                held_out=loss if math.isfinite(loss) else None,
                measures=self._constraint.measures() | (means if setting.guard and math.isfinite(loss) else {}),
            )
            passes = step == 0 or setting.guard is None or setting.guard.lets(self._start, lost)
            if self._curves.judged(point, ready=self._constraint.ready, passes=passes, patience=setting.options.patience):
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
        tensors |= {f"schedule/{name}": own for name, own in self._schedule.tensors().items()}
        if not finished:
            tensors |= {f"weight/{name}": own.detach() for name, own in self._parameters.items()}
            tensors |= optimiser_tensors(self._optimiser, self._parameters)
            tensors |= {f"constraint/{name}": own for name, own in self._constraint.tensors().items()}
            tensors |= {f"start/{name}": own for name, own in self._start.items()}
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
        if (plan := tensors.get("schedule/plan")) is not None:
            self._schedule.restore(plan)
        if state.ending is None:
            self._constraint.restore({name: own.to(device) for name, own in _under("constraint/", tensors).items()})
            self._start = _under("start/", tensors)
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
            planned_steps=self._schedule.planned or curves.step,
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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): own for name, own in tensors.items() if name.startswith(prefix)}
