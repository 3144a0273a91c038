"""The training objective: the task's loss, and the distances to the dense model's outputs and hidden states.

Hinton et al. 2015 (arXiv 1503.02531) for the outputs, TinyBERT, Jiao et al. 2020 (arXiv 1909.10351, equation 8) for the hidden
states. Deviation: distances of hidden states are relative to the size of the dense ones, so that one weight fits all models and
layers. Every term is computed for each sample, so results do not depend on which samples share a batch or a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import adapt
from pruning_core.shapes import Bool, Float
from pruning_core.spec.training import TrainingOptions
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.vocabulary import LARGE


class Objective:
    """The loss of a student.

    Args:
        student: The trained model.
        teacher: The dense model.
        options: Weights of the terms.
    """

    def __init__(self, student: TaskModel, teacher: TaskModel, options: TrainingOptions) -> None:
        self._student, self._teacher, self._options = student, teacher, options
        self._family = teacher.family
        adapter = adapt(teacher.model)
        self._decoder = None if adapter.crossing is None else adapter.sublayers[adapter.crossing].layer

    @property
    def device(self) -> torch.device:
        """Device of the student."""
        return self._student.device

    def per_sample(self, batch: Batch) -> Float[Tensor, " b"]:
        """Run the student, and the teacher if a term needs it, and return the loss of each sample."""
        options, inputs = self._options, batch.inputs
        if options.hidden:
            outputs, states = _with_states(self._student, inputs)
            with torch.no_grad():
                targets, dense_states = _with_states(self._teacher, inputs)
        else:
            outputs, states, dense_states = self._student.outputs(inputs), list[Tensor](), list[Tensor]()
            with torch.no_grad():
                targets = self._teacher.outputs(inputs) if options.distillation else outputs.detach()
        loss = torch.zeros(len(outputs), device=outputs.device)
        if options.needs_labels:
            assert batch.labels is not None, "the spec refuses to train on labels that are not there"
            loss = loss + (1 - options.distillation) * self._family.losses(outputs.float(), batch) / self._family.answers(batch)
        if options.distillation:
            loss = loss + options.distillation * self._apart(_compared(outputs), _compared(targets), batch)
        for layer, (own, dense) in enumerate(zip(states, dense_states, strict=True)):
            real = self._counted(layer, dense, batch)
            distance = ((own.float() - dense.float()).square() * real).sum((1, 2))
            size = (dense.float().square() * real).sum((1, 2))
            loss = loss + options.hidden / len(states) * distance / size.clamp_min(1e-12)
        return loss

    def naive_loss(self, batches: Sequence[Batch]) -> float:
        """Return the loss of a model that has learnt nothing: equal class probabilities, or the mean score of these samples."""
        return self._family.naive_loss(self._teacher, batches) + self._options.hidden

    def _counted(self, layer: int, hidden: Float[Tensor, "b s d"], batch: Batch) -> Bool[Tensor, "b s 1"]:
        """Return the mask of real tokens in a block's hidden states; a decoder behind an encoder has tokens of its own."""
        if self._decoder is None or layer < self._decoder:
            return batch.real.unsqueeze(-1)
        mask = batch.inputs.get("decoder_attention_mask")
        shape = hidden.shape[:2]
        return (torch.ones(shape, dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()).unsqueeze(-1)

    def _apart(self, outputs: Tensor, targets: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Return the task's divergence from the teacher's outputs.

        Class distributions are softened by the temperature. Their divergence is multiplied by its square, by which the
        gradient shrinks.
        """
        if not self._family.softens or self._options.temperature == 1:
            return self._family.divergences(outputs, targets, batch)
        heat = self._options.temperature
        return heat**2 * self._family.divergences(outputs / heat, targets / heat, batch)


def _compared(outputs: Tensor) -> Tensor:
    """Return outputs in float32, but for a vocabulary's: they are compared a few tokens at a time, and widened there."""
    return outputs if outputs.shape[-1] >= LARGE and outputs.ndim == 3 else outputs.float()


def _with_states(model: TaskModel, inputs: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs, and the hidden states after each block, (batch, length, hidden)."""
    states: list[Tensor] = []

    def keep(_block: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    handles = [block.register_forward_hook(keep) for block in adapt(model.model).blocks]
    try:
        return model.outputs(inputs), states
    finally:
        for handle in handles:
            handle.remove()
