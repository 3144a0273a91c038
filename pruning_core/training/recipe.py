"""Recipes: the makers of a method's constraint, in whichever process trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import is_transposed
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.constraint import Constraint, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Recipe(Protocol):
    """A maker of a method's constraint; a value that can be sent to other processes."""

    def constraint(self, weights: Weights) -> Constraint:
        """Make the constraint on the prunable weights, given by module path."""
        ...


@dataclass(frozen=True, slots=True)
class FirstChoice:
    """A training from dense weights that chooses which of them stay, before another one goes on.

    Attributes:
        recipe: Makes the constraint that chooses.
        options: Options of this training.
        share: Share of all steps.
    """

    recipe: Recipe
    options: TrainingOptions
    share: float


def prunable_weights(student: PreTrainedModel) -> Weights:
    """Return the weights of every prunable linear by module path, output-major; they share memory with the linears."""
    linears = adapt(student).linears
    with torch.no_grad():
        return {path: own.weight.T if is_transposed(own) else own.weight for path, own in linears.items()}
