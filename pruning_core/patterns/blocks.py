"""Counts of segments in a written checkpoint, at their places in the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import inputs_of, is_transposed, outputs_of
from pruning_core.arch.masks import Mask
from pruning_core.patterns.recount import read_weights
from pruning_core.patterns.segments import Segments
from pruning_core.shapes import Float, Int
from pruning_core.spec.grammar import SegmentBlock


@dataclass(frozen=True, slots=True)
class SegmentCount:
    """Counts for one prunable matrix of a checkpoint. A segment is kept if it has a weight that is not zero.

    Attributes:
        name: Module path.
        block: Shape of its blocks.
        weights: Number of weights of the dense matrix.
        nonzeros: Number of written weights that are not zero.
        segments: Number of segments of the dense matrix.
        kept: Number of kept segments.
        smaller: Number of segments at the edge that have fewer weights than the others.
        norms: Norms of the kept segments, (kept,), float32.
    """

    name: str
    block: SegmentBlock
    weights: int
    nonzeros: int
    segments: int
    kept: int
    smaller: int
    norms: Float[Tensor, " kept"]


def recount_segments(
    folder: Path, dense: ModelAdapter, mask: Mask, blocks: Mapping[str, SegmentBlock]
) -> tuple[SegmentCount, ...]:
    """Count the segments in each matrix of a checkpoint.

    Args:
        folder: The written checkpoint.
        dense: The dense model.
        mask: Units that the checkpoint still has.
        blocks: Shape of the blocks of each matrix, by module path, in the order of the sublayers.
    """
    places = _places(dense, mask)
    counts: list[SegmentCount] = []
    for name, written in read_weights(folder, list(blocks)):
        place = places[name]
        weight = torch.zeros(place.shape)  # removed weights count as zeros at their old places
        weight[place.outputs[:, None], place.inputs] = (written.T if place.transposed else written).float()
        segments, values = Segments.of(blocks[name]), weight.T
        norms = segments.sums(values.square()).sqrt()
        sizes = segments.sizes(tuple(values.shape))
        counts.append(
            SegmentCount(
                name=name,
                block=blocks[name],
                weights=weight.numel(),
                nonzeros=int(written.count_nonzero()),
                segments=norms.numel(),
                kept=int(segments.held(values).sum()),
                smaller=int((sizes < segments.length).sum()),
                norms=norms[segments.held(values)],
            )
        )
    return tuple(counts)


@dataclass(frozen=True, slots=True)
class _Place:
    """The outputs and inputs of a dense matrix that are still present, its shape, and whether it is stored input-major."""

    outputs: Int[Tensor, " n"]
    inputs: Int[Tensor, " m"]
    shape: tuple[int, int]
    transposed: bool


def _places(dense: ModelAdapter, mask: Mask) -> dict[str, _Place]:
    paths = dense.paths
    found: dict[str, _Place] = {}
    for index, sublayer in enumerate(dense.sublayers):
        kept = mask.indices(index)
        for part in sublayer.parts:
            shape = (outputs_of(part.linear), inputs_of(part.linear))
            found[paths[part.linear]] = _Place(part.rows_of(kept), torch.arange(shape[1]), shape, is_transposed(part.linear))
        output = sublayer.output
        columns = (kept[:, None] * sublayer.unit_width + torch.arange(sublayer.unit_width)).flatten()
        shape = (outputs_of(output), inputs_of(output))
        found[paths[output]] = _Place(torch.arange(shape[0]), columns, shape, is_transposed(output))
    return found
