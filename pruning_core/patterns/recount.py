"""Counts of weights, zeros and pattern violations in a written checkpoint, from the files and not from the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pruning_core.arch.structure import find_structure, stored_name
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.tensors import map_tensors
from pruning_core.patterns.project import to_blocks
from pruning_core.report.report import DenseRemainder
from pruning_core.shapes import Bool, Float
from pruning_core.spec.grammar import BlockPattern


@dataclass(frozen=True, slots=True)
class PatternCount:
    """Counts for one prunable matrix of a checkpoint.

    Attributes:
        name: Module path.
        weights: Number of stored weights.
        zeros: Number of stored weights that are zero.
        covered: Number of weights in whole blocks; all weights where there is no pattern.
        covered_zeros: Number of zeros among the covered weights.
        blocks: Number of whole blocks; 1 where there is no pattern.
        violations: Number of blocks that do not satisfy the pattern.
        remainder: The weights outside whole blocks; None where there are none.
    """

    name: str
    weights: int
    zeros: int
    covered: int
    covered_zeros: int
    blocks: int
    violations: int
    remainder: DenseRemainder | None


def recount(
    folder: Path, matrices: Mapping[str, bool], pattern: BlockPattern | None, pool: Bool[Tensor, "patterns size"] | None
) -> tuple[PatternCount, ...]:
    """Count weights, zeros and violations in each matrix of a checkpoint.

    Args:
        folder: The written checkpoint.
        matrices: Module paths of the prunable linears, and whether each is stored input-major.
        pattern: Block pattern; None for unstructured sparsity.
        pool: Arrangements that blocks may have. With None, a block may have any that keeps no more weights than the pattern.
    """
    return tuple(
        count_matrix(name, weight.T if matrices[name] else weight, pattern, pool)
        for name, weight in read_weights(folder, list(matrices))
    )


def count_matrix(
    name: str, weight: Float[Tensor, "d k"], pattern: BlockPattern | None, pool: Bool[Tensor, "patterns size"] | None
) -> PatternCount:
    """Count one matrix, output-major."""
    zeros = weight.numel() - int(weight.count_nonzero())
    if pattern is None:
        return PatternCount(name, weight.numel(), zeros, weight.numel(), zeros, 1, 0, None)
    d, k = weight.shape
    outputs, inputs = pattern.covered(d, k)
    held = to_blocks(weight.T != 0, pattern)
    covered = outputs * inputs
    # Rounding to the stored type may make more weights zero; a block with fewer weights satisfies the pattern too.
    left = DenseRemainder(name=name, outputs=d - outputs, inputs=k - inputs, weights=d * k - covered)
    return PatternCount(
        name=name,
        weights=d * k,
        zeros=zeros,
        covered=covered,
        covered_zeros=covered - int(held.sum()),
        blocks=held.shape[1],
        violations=int((~_satisfied(held, pattern, pool)).sum()),
        remainder=left if left.weights else None,
    )


def _satisfied(
    held: Bool[Tensor, "size blocks"], pattern: BlockPattern, pool: Bool[Tensor, "patterns size"] | None
) -> Bool[Tensor, " blocks"]:
    if pool is None:
        return held.sum(0) <= pattern.keep
    beside = (~pool).float() @ held.float()  # number of weights that a block has outside each arrangement
    return beside.min(0).values == 0


def read_weights(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a checkpoint's linears one by one, as they are stored, in the order of the names."""
    facts = read_checkpoint(folder)
    structure, mapped = find_structure(facts.shapes), map_tensors(facts)
    for name in names:
        stored = mapped[f"{stored_name(name, structure)}.weight"]
        yield name, stored.mapped()
        stored.forget()


def arrangements(pool: Bool[Tensor, "patterns size"] | None) -> tuple[str, ...]:
    """Write each arrangement of a pool as a string of the digits 0 and 1."""
    rows: list[list[int]] = [] if pool is None else pool.to(torch.int8).tolist()
    return tuple("".join(str(bit) for bit in row) for row in rows)
