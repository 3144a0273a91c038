"""Projections onto sparsity patterns: the support that keeps the largest energy.

Weights and energies are input-major, (k, d): a column belongs to one output. The energy of a weight is the loss from removing
it, never negative. With the energies ``W^2``, the support is that of the Euclidean projection of ``W``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float, Int
from pruning_core.spec.grammar import BlockPattern

# Largest block in which comparing all pairs is faster than sorting, since it reads memory in order.
_PAIRWISE = 16


class Projection(Protocol):
    """A sparsity pattern, as a rule for supports."""

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Return the support with the largest sum of energies among those that the rule allows."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A support that was chosen before, whatever the energies are.

    Attributes:
        kept: The support, input-major.
    """

    kept: Bool[Tensor, "k d"]

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Return it."""
        return self.kept.to(energy.device)


@dataclass(frozen=True, slots=True)
class LargestFraction:
    """Unstructured sparsity: each matrix keeps its weights of largest energy. The share ``sparsity`` of them is removed.

    More weights are removed where energies are equal.
    """

    sparsity: float

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Keep all weights above a threshold on the energy."""
        gone = min(energy.numel() - 1, math.ceil(self.sparsity * energy.numel() - 1e-9))
        if gone < 1:
            return torch.ones_like(energy, dtype=torch.bool)
        return energy > energy.flatten().kthvalue(gone).values


@dataclass(frozen=True, slots=True)
class LargestOfBlock:
    """Each block keeps its ``keep`` weights of largest energy, in any arrangement. Weights outside whole blocks stay."""

    pattern: BlockPattern

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Rank the weights of each block. Of equal energies, the first stays."""
        blocks = to_blocks(energy, self.pattern)
        return from_blocks(_largest(blocks, self.pattern.keep), self.pattern, energy.shape)


@dataclass(frozen=True, slots=True)
class LargestOfPool:
    """Each block keeps the arrangement of a pool that keeps the most energy. Weights outside whole blocks stay.

    Attributes:
        pattern: Shape of the blocks.
        pool: Arrangements, (patterns, weights of a block), with weights in the order of `to_blocks`.
    """

    pattern: BlockPattern
    pool: Bool[Tensor, "patterns size"]

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Score every arrangement on every block with one matrix product."""
        pool = self.pool.to(energy.device)
        chosen = best_of_pool(to_blocks(energy, self.pattern), pool)
        return from_blocks(pool[chosen].T, self.pattern, energy.shape)


def best_of_pool(blocks: Float[Tensor, "size blocks"], pool: Bool[Tensor, "patterns size"]) -> Int[Tensor, " blocks"]:
    """Return for each block the index of the arrangement that keeps the most energy; the first of equal ones."""
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
    """Undo `to_blocks` for a support. Weights that no block covers belong to the support."""
    k, d = shape
    outputs, inputs = pattern.covered(d, k)
    whole = torch.ones(k, d, dtype=torch.bool, device=support.device)
    blocks = support.view(pattern.outputs, pattern.inputs, inputs // pattern.inputs, outputs // pattern.outputs)
    whole[:inputs, :outputs] = blocks.permute(2, 1, 3, 0).reshape(inputs, outputs)
    return whole


def _largest(blocks: Float[Tensor, "size blocks"], keep: int) -> Bool[Tensor, "size blocks"]:
    """Mark the ``keep`` largest values of each column; of equal ones the first."""
    size = len(blocks)
    if size > _PAIRWISE:
        order = blocks.argsort(dim=0, descending=True, stable=True)
        kept = torch.zeros_like(blocks, dtype=torch.bool)
        return kept.scatter_(0, order[:keep], True)
    larger = torch.zeros(blocks.shape, dtype=torch.int8, device=blocks.device)  # number of values that beat this one
    for first in range(size - 1):
        wins = blocks[first] >= blocks[first + 1 :]
        larger[first + 1 :] += wins
        larger[first] += (~wins).sum(0, dtype=torch.int8)
    return larger < keep
