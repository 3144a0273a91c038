"""Masks: which units stay. A support only, never a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mask:
    """For every unit group, in the groups' order, True where the unit stays. Tensors are boolean and on the CPU."""

    kept: tuple[Tensor, ...]

    @classmethod
    def full(cls, sizes: Sequence[int]) -> Mask:
        """Keep everything."""
        return cls(tuple(torch.ones(size, dtype=torch.bool) for size in sizes))

    def counts(self) -> list[int]:
        """Units kept in each group."""
        return [int(kept.sum()) for kept in self.kept]

    def indices(self, group: int) -> Tensor:
        """Ascending indices of the units kept in a group, int64."""
        return self.kept[group].nonzero().flatten()
