"""Segments, the groups of block-structured sparsity: runs of weights inside blocks that are kept or removed together.

Li et al. 2020 (arXiv 2009.08065, section 3.1): a matrix is cut into blocks, and whole rows or columns of a block are pruned. A
block of P outputs and Q inputs has row segments of Q consecutive inputs of one output, or column segments of P consecutive
outputs of one input. Where blocks do not divide a matrix, the last blocks are smaller, and so are their segments.

Weights and energies are input-major, (k, d), as everywhere in the core, so a row segment runs down a column of the tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float
from pruning_core.spec.grammar import SegmentBlock


@dataclass(frozen=True, slots=True)
class Segments:
    """Runs of ``length`` weights of a matrix along its inputs (``axis`` 0) or its outputs (``axis`` 1)."""

    length: int
    axis: int

    @classmethod
    def of(cls, block: SegmentBlock) -> Segments:
        """Return the segments of blocks of a given shape."""
        return cls(block.length, 0 if block.segment == "row" else 1)

    def sums(self, values: Float[Tensor, "k d"]) -> Float[Tensor, "a b"]:
        """Sum the values of each segment, (ceil(k / length), d) or (k, ceil(d / length)); segments keep their places."""
        size = values.shape[self.axis]
        lack = -size % self.length
        if lack:
            shape = list(values.shape)
            shape[self.axis] = lack
            values = torch.cat([values, values.new_zeros(shape)], dim=self.axis)
        return values.unflatten(self.axis, (-1, self.length)).sum(self.axis + 1)

    def spread(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Assign the value of each segment to all its weights, in a matrix of this shape."""
        return values.repeat_interleave(self.length, self.axis).narrow(self.axis, 0, shape[self.axis])

    def sizes(self, shape: tuple[int, ...], device: torch.device | None = None) -> Float[Tensor, "a b"]:
        """Count the weights of each segment of a matrix of this shape: ``length``, or fewer at the edge."""
        return self.sums(torch.ones(1, 1, device=device).expand(*shape))

    def held(self, weights: Float[Tensor, "k d"]) -> Bool[Tensor, "a b"]:
        """Return which segments have a weight that is not zero."""
        return self.sums((weights != 0).float()) > 0

    def count(self, shape: tuple[int, ...]) -> int:
        """Count the segments of a matrix of this shape."""
        return math.ceil(shape[self.axis] / self.length) * shape[1 - self.axis]


@dataclass(frozen=True, slots=True)
class LargestSegments:
    """A matrix keeps its segments of largest energy per weight. Segments are removed until ``gone`` weights are removed.

    At least one segment stays: a matrix of zeros would cut the model in two.

    Attributes:
        segments: Segments of the matrix.
        gone: Number of weights to remove.
        output_weights: Weight of an error of each output, (d,). With None, all outputs count alike.
    """

    segments: Segments
    gone: int
    output_weights: Float[Tensor, " d"] | None = None

    def support(self, energy: Float[Tensor, "k d"]) -> Bool[Tensor, "k d"]:
        """Rank all segments of the matrix. Of equal ones, the first are removed."""
        if self.output_weights is not None:
            energy = energy * self.output_weights.to(energy)
        return self.segments.spread(self.kept(self.segments.sums(energy), energy.shape), energy.shape)

    def kept(self, energies: Float[Tensor, "a b"], shape: tuple[int, ...]) -> Bool[Tensor, "a b"]:
        """Return which segments stay, given the sum of the energies of each."""
        sizes = self.segments.sizes(shape, energies.device)
        order = (energies / sizes).flatten().argsort(stable=True)
        before = sizes.flatten()[order].cumsum(0) - sizes.flatten()[order]
        kept = torch.ones_like(order, dtype=torch.bool)
        kept[order[before < self.gone]] = False
        kept[order[-1]] = True
        return kept.view_as(energies)
