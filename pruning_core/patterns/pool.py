"""Pools of block patterns, mined from the weights themselves.

An arrangement is a set of positions in a block that may hold weights. Wang 2024 (arXiv 2407.08334) finds for every block of the
model the arrangement of its largest weights, and keeps the most frequent arrangements. Deviation: Lloyd's iteration then
improves the pool, as in k-means. Each block takes the arrangement that keeps the most of its energy, and each arrangement is
replaced by the one that keeps the most energy of the blocks that took it. The energy kept never falls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from pruning_core.patterns.project import LargestOfBlock, best_of_pool, to_blocks
from pruning_core.shapes import Bool, Float, Int
from pruning_core.spec.grammar import BlockPattern

# Number of blocks that improve the pool. It is a sample of all blocks: more of them would not change the result.
_SAMPLE = 65_536
_ROUNDS = 10


def mine_pool(
    energies: Iterable[Float[Tensor, "k d"]], pattern: BlockPattern, patterns: int, generator: torch.Generator
) -> Bool[Tensor, "patterns size"]:
    """Find a pool of arrangements for a model.

    Args:
        energies: Energies of each matrix, input-major. They are iterated over three times, and need not all be in memory.
        pattern: Shape of the blocks, and weights kept in each.
        patterns: Size of the pool. It is smaller where fewer arrangements occur.
        generator: Draws the blocks that improve the pool.
    """
    pool = most_frequent(energies, pattern, patterns)
    # Energies are scaled by the mean of their matrix, so that every matrix counts alike.
    scaled = (to_blocks(energy / energy.mean().clamp_min(1e-30), pattern) for energy in energies)
    count = sum(math.prod(pattern.covered(*energy.T.shape)) // pattern.size for energy in energies)
    chosen = torch.randperm(count, generator=generator)[:_SAMPLE].to(pool.device)
    return improve(pool, _columns(scaled, chosen), pattern.keep)


def _columns(parts: Iterable[Float[Tensor, "size n"]], chosen: Int[Tensor, " m"]) -> Float[Tensor, "size m"]:
    """Return chosen columns of the concatenation of all parts, without concatenating them."""
    found: list[Tensor] = []
    places: list[Tensor] = []
    start = 0
    for part in parts:
        own = ((chosen >= start) & (chosen < start + part.shape[1])).nonzero().flatten()
        found.append(part[:, chosen[own] - start])
        places.append(own)
        start += part.shape[1]
    return torch.cat(found, dim=1)[:, torch.cat(places).argsort()]


def most_frequent(
    energies: Iterable[Float[Tensor, "k d"]], pattern: BlockPattern, patterns: int
) -> Bool[Tensor, "patterns size"]:
    """Count the best free arrangement of every block, and return the most frequent ones. Ties are broken by their bits."""
    free = LargestOfBlock(pattern)
    counted = [encode(to_blocks(free.support(energy), pattern).T).unique(return_counts=True) for energy in energies]
    values, place = torch.cat([codes for codes, _ in counted]).unique(return_inverse=True)
    counts = torch.zeros_like(values).index_add_(0, place, torch.cat([counts for _, counts in counted]))
    order = counts.argsort(descending=True, stable=True)[:patterns]
    return decode(values[order], pattern.size)


def improve(
    pool: Bool[Tensor, "patterns size"], blocks: Float[Tensor, "size blocks"], keep: int
) -> Bool[Tensor, "patterns size"]:
    """Run Lloyd's iteration until nothing changes, at most ten times. An arrangement that no block takes stays as it is."""
    for _ in range(_ROUNDS):
        chosen = best_of_pool(blocks, pool)
        sums = torch.zeros(len(pool), len(blocks), dtype=blocks.dtype, device=blocks.device).index_add_(0, chosen, blocks.T)
        best = torch.zeros_like(pool).scatter_(1, sums.argsort(dim=1, descending=True, stable=True)[:, :keep], True)
        taken = torch.bincount(chosen, minlength=len(pool)) > 0
        following = torch.where(taken[:, None], best, pool)
        if torch.equal(following, pool):
            break
        pool = following
    return decode(encode(pool).unique(), pool.shape[1])


def encode(arrangements: Bool[Tensor, "n size"]) -> Int[Tensor, " n"]:
    """Encode arrangements as the bits of integers."""
    bits = torch.ones(arrangements.shape[1], dtype=torch.int64, device=arrangements.device) << torch.arange(
        arrangements.shape[1], device=arrangements.device
    )
    return (arrangements * bits).sum(1)


def decode(codes: Int[Tensor, " n"], size: int) -> Bool[Tensor, "n size"]:
    """Decode arrangements from the bits of integers."""
    return (codes[:, None] >> torch.arange(size, device=codes.device) & 1).bool()
