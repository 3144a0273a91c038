"""What a peer decides: units that stay, constants that take the place of others, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.shapes import Float


@dataclass(frozen=True, slots=True)
class Structure:
    """Units that stay, and biases of output projections.

    An attention without heads is left out alone, where its FFN keeps neurons; without both, the block is left out.

    Attributes:
        mask: The units that stay.
        biases: What the output projection of a sublayer adds to every token, by the sublayer's index.
    """

    mask: Mask
    biases: Mapping[int, Float[Tensor, " d"]] = field(default_factory=dict[int, Tensor])

    def macs(self, groups: Sequence[UnitGroup], length: float) -> float:
        """Count the multiply-accumulates of the blocks for one sequence, as the core does. A bias costs none."""
        return priced(groups, self.mask.counts(), length)

    @property
    def alone(self) -> frozenset[int]:
        """Attention sublayers that are left out while the FFN after them stays."""
        counts = self.mask.counts()
        return frozenset(at for at in range(0, len(counts), 2) if not counts[at] and counts[at + 1])


def priced(groups: Sequence[UnitGroup], counts: Sequence[int], length: float) -> float:
    """Count the multiply-accumulates of so many units of each group for one sequence of a length."""
    return sum(count * group.macs_per_unit(length) for group, count in zip(groups, counts, strict=True))


def sizes(groups: Sequence[UnitGroup]) -> list[int]:
    """Return the number of units of each group."""
    return [group.size for group in groups]


def budget(groups: Sequence[UnitGroup], length: float, keep: float) -> float:
    """Return the multiply-accumulates that may be kept."""
    return keep * priced(groups, sizes(groups), length) * (1 + 1e-9)


def best(scores: Float[Tensor, " units"], count: int) -> Tensor:
    """Return the mask of so many units of the highest scores."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.topk(count).indices] = True
    return kept
