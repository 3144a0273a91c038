"""Trained parameters and their optimiser: making a student's parameters its own, and freezing them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_trainable_(student: TaskModel, sample: Batch) -> dict[str, nn.Parameter]:
    """Replace a model's parameters, except those of embeddings, by copies of its own, and find those to train.

    Until here a clone shares its parameters with the dense model. A parameter that no gradient reaches (in a pooler that
    nothing reads) is not trained: weight decay alone would shrink it.

    Args:
        student: The model; its parameters are replaced in place.
        sample: Any input; its backward pass shows which parameters the outputs depend on.

    Returns:
        The parameters to train by name, in the model's order.
    """
    model = student.model
    embedded = {id(own) for module in model.modules() if isinstance(module, nn.Embedding) for own in module.parameters()}
    found: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in embedded and parameter.is_floating_point():
                own = nn.Parameter(parameter.detach().clone())
                setattr(module, name, own)
                found[f"{path}.{name}" if path else name] = own
    student.outputs(sample.to(student.device).inputs).float().square().sum().backward()
    used = {name: own for name, own in found.items() if own.grad is not None}
    for own in found.values():
        own.grad = None
    for name in found.keys() - used.keys():
        found[name].requires_grad = False
    return used


def freeze_(model: PreTrainedModel) -> None:
    """Free all gradients; no parameter requires one from here on."""
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad = False


def optimiser_for(parameters: Mapping[str, nn.Parameter], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW with weight decay for matrices only."""
    matrices = [own for own in parameters.values() if own.ndim > 1]
    others = [own for own in parameters.values() if own.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)


def optimiser_tensors(optimiser: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimiser's moments and step counts by the parameters' names."""
    return {
        f"{key}/{name}": value
        for name, own in parameters.items()
        for key, value in optimiser.state.get(own, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimiser_(
    optimiser: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], keys: Sequence[str]
) -> None:
    """Restore moments and step counts; counts stay on the CPU, where torch keeps them."""
    for name, own in parameters.items():
        for key in keys:
            if (value := tensors.get(f"{key}/{name}")) is not None:
                optimiser.state[own][key] = value if key == "step" else value.to(own)
