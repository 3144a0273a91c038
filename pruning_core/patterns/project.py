"""Projections: which weights may stay, by the largest energy that a pattern can keep.

Weights and energies are input-major, (k, d): what belongs to one output is a column. An energy is what is lost with a weight,
never negative; the projection of ``W`` in the Euclidean sense is the one of the energies ``W^2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float, Int
from pruning_core.spec.grammar import BlockPattern

# Up to so many weights a block, comparing all pairs is faster than sorting: it runs along memory.
_PAIRWISE = 16


class Projection(Protocol):
    """A rule for supports."""

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Give the support with the largest sum of energies among those that the rule allows."""
        ...


@dataclass(frozen=True, slots=True)
class LargestFraction:
    """Unstructured: of each matrix the weights of largest energy; ``sparsity`` of them or a few more go."""

    sparsity: float

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Cut at the smallest energy that stays."""
        gone = min(energy.numel() - 1, math.ceil(self.sparsity * energy.numel() - 1e-9))
        if gone < 1:
            return torch.ones_like(energy, dtype=torch.bool)
        return energy > energy.flatten().kthvalue(gone).values


@dataclass(frozen=True, slots=True)
class LargestOfBlock:
    """Of each block the ``keep`` weights of largest energy, in any arrangement; what no whole block covers stays."""

    pattern: BlockPattern

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Rank within blocks; of equal energies the first stays."""
        blocks = to_blocks(energy, self.pattern)
        return from_blocks(_largest(blocks, self.pattern.keep), self.pattern, energy.shape)


@dataclass(frozen=True, slots=True)
class LargestOfPool:
    """Of each block the arrangement of a pool that keeps the most energy; what no whole block covers stays.

    Attributes:
        pattern: The blocks.
        pool: (patterns, weights of a block), weights in the order of `to_blocks`.
    """

    pattern: BlockPattern
    pool: Bool[Tensor, "patterns size"]

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Score every arrangement on every block with one matrix product."""
        pool = self.pool.to(energy.device)
        chosen = best_of_pool(to_blocks(energy, self.pattern), pool)
        return from_blocks(pool[chosen].T, self.pattern, energy.shape)


def best_of_pool(blocks: Float[Tensor, "size blocks"], pool: Bool[Tensor, "patterns size"]) -> Int[Tensor, " blocks"]:
    """Give the index of the arrangement that keeps the most energy of each block; the first of equals."""
    return (pool.to(blocks.dtype) @ blocks).argmax(0)


def to_blocks(values: Tensor, pattern: BlockPattern) -> Tensor:
    """Lay out whole blocks as columns, (size, blocks): weights by output, then input; blocks by input, then output."""
    k, d = values.shape
    outputs, inputs = pattern.covered(d, k)
    cut = values[:inputs, :outputs]
    if pattern.one_row:
        return cut.unflatten(0, (-1, pattern.inputs)).transpose(0, 1).reshape(pattern.inputs, -1)
    split = cut.unflatten(1, (-1, pattern.outputs)).unflatten(0, (-1, pattern.inputs))  # (k/Q, Q, d/P, P)
    return split.permute(3, 1, 0, 2).reshape(pattern.size, -1)


def from_blocks(support: Bool[Tensor, "size blocks"], pattern: BlockPattern, shape: tuple[int, ...]) -> Bool[Tensor, "k d"]:
    """Undo `to_blocks` for a support; what no block covers is in it."""
    k, d = shape
    outputs, inputs = pattern.covered(d, k)
    whole = torch.ones(k, d, dtype=torch.bool, device=support.device)
    blocks = support.view(pattern.outputs, pattern.inputs, inputs // pattern.inputs, outputs // pattern.outputs)
    whole[:inputs, :outputs] = blocks.permute(2, 1, 3, 0).reshape(inputs, outputs)
    return whole


def _largest(blocks: Float[Tensor, "size blocks"], keep: int) -> Bool[Tensor, "size blocks"]:
    """Mark the ``keep`` largest of each column; of equals the first."""
    size = len(blocks)
    if size > _PAIRWISE:
        order = blocks.argsort(dim=0, descending=True, stable=True)
        kept = torch.zeros_like(blocks, dtype=torch.bool)
        return kept.scatter_(0, order[:keep], True)
    larger = torch.zeros(blocks.shape, dtype=torch.int8, device=blocks.device)  # how many beat this one
    for first in range(size - 1):
        wins = blocks[first] >= blocks[first + 1 :]
        larger[first + 1 :] += wins
        larger[first] += (~wins).sum(0, dtype=torch.int8)
    return larger < keep
