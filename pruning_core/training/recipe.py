"""How a method's constraint is made, wherever it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import is_transposed
from pruning_core.training.constraint import Constraint, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Recipe(Protocol):
    """What makes a method's constraint; a value that can be sent to other processes."""

    def constraint(self, weights: Weights) -> Constraint:
        """Make the constraint of the prunable weights, which are given by module path."""
        ...


def prunable_weights(student: PreTrainedModel) -> Weights:
    """Give the weights of every prunable linear by its module path, output-major; what is done to one is done to the linear."""
    linears = adapt(student).linears
    with torch.no_grad():
        return {path: own.weight.T if is_transposed(own) else own.weight for path, own in linears.items()}
