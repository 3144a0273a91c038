"""Sparsity patterns and how they are written: ``2:4``, ``4x4:8``, ``unstructured``, blocks such as ``64x64``. Torch-free.

``N:M`` keeps N of every M consecutive inputs of each output. ``PxQ:K`` keeps K weights of every block of P outputs and Q
inputs, in one of a pool of arrangements; ``PxQ`` keeps half of them. So ``1x4:2`` is ``2:4``. Where a width is not a multiple
of the block's, the remaining inputs or outputs stay dense.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SegmentKind = Literal["row", "column"]

UNSTRUCTURED: Literal["unstructured"] = "unstructured"
# An arrangement is stored in the bits of one 64-bit integer.
LARGEST_BLOCK = 64


@dataclass(frozen=True, slots=True)
class BlockPattern:
    """Blocks of ``outputs`` x ``inputs`` weights, ``keep`` of which stay."""

    outputs: int
    inputs: int
    keep: int

    @property
    def size(self) -> int:
        """Number of weights in a block."""
        return self.outputs * self.inputs

    @property
    def sparsity(self) -> float:
        """Share of a block's weights that are pruned."""
        return 1 - self.keep / self.size

    @property
    def one_row(self) -> bool:
        """Whether each block is a run of inputs of one output, as in N:M."""
        return self.outputs == 1

    def covered(self, outputs: int, inputs: int) -> tuple[int, int]:
        """Return the numbers of outputs and inputs of a matrix that whole blocks cover."""
        return outputs // self.outputs * self.outputs, inputs // self.inputs * self.inputs


def parse_pattern(text: str) -> BlockPattern | None:
    """Parse a pattern; return None for ``unstructured``.

    Raises:
        ValueError: The text is no pattern, its blocks are too large, or they keep nothing or everything.
    """
    if text == UNSTRUCTURED:
        return None
    row = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
    block = re.fullmatch(r"(\d{1,4})x(\d{1,4})(?::(\d{1,4}))?", text)
    if row is not None:
        pattern = BlockPattern(1, int(row[2]), int(row[1]))
    elif block is not None:
        outputs, inputs = int(block[1]), int(block[2])
        pattern = BlockPattern(outputs, inputs, int(block[3]) if block[3] else outputs * inputs // 2)
    else:
        raise ValueError(
            f"must be N:M such as 2:4 (N of every M inputs stay), PxQ:K such as 4x4:8 (K of every block of P outputs and "
            f"Q inputs stay), or {UNSTRUCTURED}"
        )
    if pattern.size > LARGEST_BLOCK:
        raise ValueError(f"blocks may hold at most {LARGEST_BLOCK} weights, these hold {pattern.size}")
    if not 0 < pattern.keep < pattern.size:
        raise ValueError(
            f"must keep at least 1 and at most {max(1, pattern.size - 1)} of the {pattern.size} weights of a block, "
            f"got {pattern.keep}"
        )
    return pattern


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """Blocks of ``outputs`` x ``inputs`` weights, whose rows or columns are kept or pruned as a whole."""

    outputs: int
    inputs: int
    segment: SegmentKind

    @property
    def length(self) -> int:
        """Number of weights in a segment: a row of the block runs over its inputs, a column over its outputs."""
        return self.inputs if self.segment == "row" else self.outputs

    def __str__(self) -> str:
        return f"{self.segment}s of {self.outputs}x{self.inputs}"


LARGEST_SIDE = 1024
# Default blocks: the least width of a matrix, and the weights on each side of its blocks.
_DEFAULT_SIDES = ((2048, 64), (768, 32), (0, 16))


def parse_block(text: str, segment: SegmentKind) -> SegmentBlock:
    """Parse a block such as ``64x64``: outputs, then inputs.

    Raises:
        ValueError: The text is no block, a side is too long, or the segments are single weights.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise ValueError("must be PxQ such as 64x64: the outputs and inputs of a block, of which whole rows or columns go")
    block = SegmentBlock(int(found[1]), int(found[2]), segment)
    if not (1 <= block.outputs <= LARGEST_SIDE and 1 <= block.inputs <= LARGEST_SIDE):
        raise ValueError(f"a block's sides may be 1 to {LARGEST_SIDE}, got {text}")
    if block.length < 2:
        raise ValueError(f"{segment} segments of {text} are single weights; for those use admm-pattern, pattern unstructured")
    return block


def default_block(outputs: int, inputs: int, segment: SegmentKind) -> SegmentBlock:
    """Return the default block for a matrix: 16, 32 or 64 weights on each side, by the matrix's narrower side."""
    narrower = max(1, min(outputs, inputs))
    side = next(side for least, side in _DEFAULT_SIDES if narrower >= least)
    return SegmentBlock(min(side, max(1, outputs)), min(side, max(1, inputs)), segment)


@dataclass(frozen=True, slots=True)
class MatrixShape:
    """A prunable matrix: its module path, and its numbers of outputs and inputs."""

    name: str
    outputs: int
    inputs: int
