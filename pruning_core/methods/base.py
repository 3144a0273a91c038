"""What a method is: statistics that do not depend on the budget, then a mask for any budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.evidence.context import Context
from pruning_core.shapes import Float


@dataclass(frozen=True, slots=True)
class Scores:
    """Statistics of the dense model, reusable for every budget.

    Attributes:
        importance: One value >= 0 a unit, one tensor a sublayer.
        gradients: (samples, units) a sublayer, where the method has them.
    """

    importance: Sequence[Float[Tensor, " units"]]
    gradients: Sequence[Float[Tensor, "samples units"]] | None = None


class Method(Protocol):
    """A way to choose what stays."""

    def prepare(self, ctx: Context) -> Scores:
        """Gather what the choice needs; independent of the budget."""
        ...

    def plan(self, scores: Scores, budget: Budget | CurveBudget, ctx: Context) -> Mask:
        """Choose the mask under a budget."""
        ...
