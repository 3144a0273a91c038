"""ShortGPT: Men et al. 2024, *Layers in Large Language Models are More Redundant Than You Expect* (arXiv 2403.03853).

Section 3.2, equation 1: the block influence ``BI_i = 1 - E over t of (X_i,t . X_i+1,t) / (||X_i,t|| ||X_i+1,t||)``, of the
hidden states X_i before and X_i+1 after block i. Section 3.3: the blocks of the lowest influence are removed, all at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers.statistics import Statistics, gather
from benchmarks.decoders.peers.structure import Structure, best
from pruning_core.arch.masks import Mask
from pruning_core.shapes import Float


def choose(case: Case, keep: float) -> tuple[Structure, float]:
    """Return the structure that keeps at most a share of the blocks, and the seconds of its statistics."""
    statistics, seconds = case.once("statistics", lambda: gather(case.evidence))
    influence = block_influence(statistics)
    stays = best(influence, int(keep * len(influence) + 1e-9))
    dense = case.evidence.dense
    kept = [stays[own.layer].expand(own.units).clone() for own in dense.sublayers]
    return Structure(Mask(tuple(kept))), seconds


def block_influence(statistics: Statistics) -> Float[Tensor, " blocks"]:
    """Return the influence of each block."""
    return torch.ones_like(statistics.likeness) - statistics.likeness
