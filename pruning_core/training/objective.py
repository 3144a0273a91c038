"""What training minimises: the task's loss, the distance to the dense model's outputs, and that to its hidden states.

Hinton et al. 2015 (arXiv 1503.02531) for the outputs, TinyBERT, Jiao et al. 2020 (arXiv 1909.10351, equation 8) for the hidden
states. Deviation: distances of hidden states are relative to their own size, so that one weight fits all models and layers.
Every term is a value a sample, so that no result depends on which samples share a batch or a device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.calibration import Batch
from pruning_core.models import TaskModel
from pruning_core.shapes import Float
from pruning_core.spec import TaskType
from pruning_core.training_spec import TrainingOptions


class Objective:
    """The loss of a student.

    Args:
        student: What is trained.
        teacher: The dense model.
        options: Weights of the terms.
    """

    def __init__(self, student: TaskModel, teacher: TaskModel, options: TrainingOptions) -> None:
        self._student, self._teacher, self._options = student, teacher, options

    def per_sample(self, batch: Batch) -> Float[Tensor, " b"]:
        """Run student and, where it is needed, teacher."""
        options, inputs = self._options, batch.inputs
        if options.hidden:
            outputs, states = self._student.outputs_and_states(inputs)
            with torch.no_grad():
                targets, dense_states = self._teacher.outputs_and_states(inputs)
        else:
            outputs, states = self._student.outputs(inputs), ()
            with torch.no_grad():
                targets, dense_states = (self._teacher.outputs(inputs) if options.distillation else outputs.detach()), ()
        loss = torch.zeros(len(outputs), device=outputs.device)
        if options.needs_labels:
            assert batch.labels is not None, "the spec refuses to train on labels that are not there"
            loss = loss + (1 - options.distillation) * _task_loss(self._student.task_type, outputs.float(), batch.labels)
        if options.distillation:
            loss = loss + options.distillation * _apart(
                self._student.task_type, outputs.float(), targets.float(), options.temperature
            )
        real = batch.real.unsqueeze(-1)
        for own, dense in zip(states, dense_states, strict=True):
            distance = ((own.float() - dense.float()).square() * real).sum((1, 2))
            size = (dense.float().square() * real).sum((1, 2))
            loss = loss + options.hidden / len(states) * distance / size.clamp_min(1e-12)
        return loss

    def naive_loss(self, batches: Sequence[Batch]) -> float:
        """Give the loss of a model that has learnt nothing: it finds all classes alike, or the mean score of these samples."""
        task_type, teacher = self._teacher.task_type, self._teacher
        base = 1.0
        if task_type == "text-classification":
            base = math.log(max(2, teacher.model.config.num_labels or 2))
        elif task_type == "regression":
            with torch.no_grad():
                scores = torch.cat([teacher.outputs(batch.to(teacher.device).inputs)[:, 0].float() for batch in batches])
            base = max(1e-6, float(scores.var(correction=0)))
        return base + self._options.hidden


def _task_loss(task_type: TaskType, outputs: Float[Tensor, "b o"], labels: Float[Tensor, " b"] | Tensor) -> Float[Tensor, " b"]:
    if task_type == "text-classification":
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")
    return (outputs[:, 0] - labels.to(outputs)).square()


def _apart(
    task_type: TaskType, outputs: Float[Tensor, "b o"], targets: Float[Tensor, "b o"], temperature: float
) -> Float[Tensor, " b"]:
    """KL divergence of classes, times the temperature's square as its gradient shrinks with that; else squared error."""
    if task_type == "text-classification":
        logs, wanted = (outputs / temperature).log_softmax(-1), (targets / temperature).log_softmax(-1)
        return temperature**2 * (wanted.exp() * (wanted - logs)).sum(-1)
    return (outputs - targets).square().sum(-1)
