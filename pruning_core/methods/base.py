"""What a method is: statistics that do not depend on the budget, then a mask for any budget."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pruning_core.cost import Budget, CurveBudget, UnitGroup
from pruning_core.evidence import Evidence
from pruning_core.masks import Mask
from pruning_core.models import TaskModel
from pruning_core.progress import StageClock
from pruning_core.shapes import Float


@dataclass(frozen=True, slots=True)
class Context:
    """What every method works on.

    ``layers`` are the layers that stay, where the stock layout is planned; None where every layer has widths of its own.
    """

    task_model: TaskModel
    evidence: Evidence
    clock: StageClock
    seed: int
    layers: tuple[int, ...] | None = None

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The dense model's unit groups."""
        return self.evidence.dense.groups

    def generator(self, purpose: str) -> torch.Generator:
        """Give a CPU generator of its own to each purpose, so that none depends on what another one drew."""
        return generator(self.seed, purpose)


def generator(seed: int, purpose: str) -> torch.Generator:
    """Derive a CPU generator from the spec's seed and a purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


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
