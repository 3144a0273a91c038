"""Groups of processes that train side by side: gradients are summed; each process does everything else alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Group(Protocol):
    """Processes that take the same steps, each on its share of every batch."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def world(self) -> int:
        """Number of processes."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """A group of one process."""

    rank: int = 0
    world: int = 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing: a tensor is the sum of one."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The processes of torch's default group."""

    rank: int
    world: int

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Start all sums, then wait for them, so that small ones travel beside large ones."""
        from torch import distributed

        works = [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in works:
            if work is not None:
                work.wait()


def summed(group: Group, value: float, device: torch.device) -> float:
    """Sum a number over all processes."""
    if group.world == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64, device=device)
    group.sum_([total])
    return float(total)
