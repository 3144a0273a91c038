"""How a method's constraint is made, wherever it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from pruning_core.arch.encoder import adapt
from pruning_core.arch.stored import check_trainable
from pruning_core.training.constraint import Constraint, Weights

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Recipe(Protocol):
    """What makes a method's constraint; a value that can be sent to other processes."""

    def constraint(self, weights: Weights) -> Constraint:
        """Make the constraint of the prunable weights, which are given by module path."""
        ...


def prunable_weights(student: PreTrainedModel) -> Weights:
    """Give the weights of every prunable linear by its module path, output-major.

    Raises:
        UnsupportedArchitecture: They are stored the other way round.
    """
    adapter = adapt(student)
    check_trainable(adapter.family)
    return {path: cast("nn.Parameter", linear.weight) for path, linear in adapter.linears.items()}
