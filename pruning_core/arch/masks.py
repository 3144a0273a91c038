"""Masks: which units stay. A mask is a support, never a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mask:
    """One boolean CPU tensor for every unit group, in the groups' order: True where the unit stays."""

    kept: tuple[Tensor, ...]

    @classmethod
    def full(cls, sizes: Sequence[int]) -> Mask:
        """Return the mask that keeps every unit."""
        return cls(tuple(torch.ones(size, dtype=torch.bool) for size in sizes))

    def counts(self) -> list[int]:
        """Count the units kept in each group."""
        return [int(kept.sum()) for kept in self.kept]

    def indices(self, group: int) -> Tensor:
        """Return the indices of the units kept in a group, ascending, int64."""
        return self.kept[group].nonzero().flatten()
