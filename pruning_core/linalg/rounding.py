"""Rounding of a matrix to integers of few bits, with one scale for each group of weights in a row.

Weights of a row ``w`` are stored as ``round(w / s)`` in ``bits`` bits, one scale ``s`` (float16) for every ``group`` weights
along the inputs. What is read back is ``s`` times the integer.

To the nearest value, each weight's error stands alone. With the Gram ``G = X^T X`` of the matrix's inputs, the error of each
column is compensated by the columns that are still to be rounded, so that ``||X W^T - X V^T||`` stays small: the optimal brain
surgeon with a fixed order (Frantar et al. 2022, *GPTQ*, arXiv 2210.17323, algorithm 1). Our deviations: columns are rounded in
the order of falling ``G_jj``, of which the paper's authors speak in their code (``act_order``); scales are set from the weights
before any is rounded, so that groups keep to their places in the row; a factorisation that fails gets a larger ridge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.shapes import Float, Int

# Columns whose errors are carried to each other at once; those to the right of the block follow in one product.
_BLOCK = 128
# Ridge on the Gram, as a share of its mean diagonal (the paper's), and by how much it grows where a factorisation fails.
_RIDGE, _GROWTH, _TRIES = 0.01, 10.0, 4
# Shares of the largest weight of a group that its scale may reach to. Small weights gain where the largest is cut off.
_REACH = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
_LEAST_SCALE = 2.0**-24  # the smallest number of float16 above zero


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix of integers and scales.

    Attributes:
        codes: The integers, (outputs, inputs), from ``-2^(bits-1)`` to ``2^(bits-1) - 1``.
        scales: The scales, (outputs, groups), float16.
        bits: Bits of an integer.
        group: Weights that share a scale; the last group of a row may have fewer.
    """

    codes: Int[Tensor, "d k"]
    scales: Float[Tensor, "d groups"]
    bits: int
    group: int

    @property
    def weight(self) -> Float[Tensor, "d k"]:
        """What is read back, float32."""
        return self.codes.float() * spread(self.scales.float(), self.group, self.codes.shape[1])


def spread(scales: Float[Tensor, "d groups"], group: int, inputs: int) -> Float[Tensor, "d k"]:
    """Return one scale for each weight."""
    return scales.repeat_interleave(group, 1)[:, :inputs]


def scales_of(
    weight: Float[Tensor, "d k"], bits: int, group: int, importance: Float[Tensor, " k"] | None = None
) -> Float[Tensor, "d groups"]:
    """Return the scale of each group with the least squared error among a few, float16.

    Args:
        weight: The matrix.
        bits: Bits of an integer.
        group: Weights that share a scale.
        importance: Weight of each input's error, such as the diagonal of the Gram; None: all alike.
    """
    inputs = weight.shape[1]
    lack = -inputs % group
    grouped = torch.nn.functional.pad(weight, (0, lack)).unflatten(1, (-1, group))
    costs = torch.ones(inputs, device=weight.device) if importance is None else importance.to(weight)
    by_group = torch.nn.functional.pad(costs, (0, lack)).view(-1, group)
    most = 2 ** (bits - 1)
    largest = grouped.abs().amax(2)
    best = torch.full_like(largest, torch.inf)
    chosen = largest.to(torch.float16)
    for reach in _REACH:
        scales = (largest * (reach / (most - 1))).clamp_min(_LEAST_SCALE).to(torch.float16)
        steps = scales.float().unsqueeze(2)
        found = (grouped / steps).round_().clamp_(-most, most - 1).mul_(steps).sub_(grouped).square_().mul_(by_group).sum(2)
        chosen = torch.where(found < best, scales, chosen)
        best = torch.minimum(found, best)
    return chosen


def round_nearest(
    weight: Float[Tensor, "d k"], bits: int, group: int, importance: Float[Tensor, " k"] | None = None
) -> Rounded:
    """Round every weight to its nearest value.

    Args:
        weight: The matrix, output-major.
        bits: Bits of an integer, at most 8.
        group: Weights that share a scale.
        importance: As for `scales_of`.
    """
    scales = scales_of(weight, bits, group, importance)
    most = 2 ** (bits - 1)
    steps = spread(scales.float(), group, weight.shape[1])
    return Rounded((weight / steps).round_().clamp_(-most, most - 1).to(torch.int8), scales, bits, group)


def round_compensated(weight: Float[Tensor, "d k"], gram: Float[Tensor, "k k"], bits: int, group: int) -> Rounded:
    """Round column after column, and let the others make up for the error of each.

    Args:
        weight: The matrix, output-major.
        gram: ``X^T X`` of its inputs.
        bits: Bits of an integer, at most 8.
        group: Weights that share a scale.

    Returns:
        The rounded matrix; rounded to the nearest value where the Gram cannot be factorised.

    Cost: one Cholesky factorisation and inverse, k^3, and products of k^2 d.
    """
    diagonal = gram.diagonal().float()
    scales = scales_of(weight, bits, group, diagonal)
    order = diagonal.argsort(descending=True, stable=True)
    factor = _inverse_factor(gram.double()[order][:, order])
    if factor is None:
        return round_nearest(weight, bits, group, diagonal)
    most, inputs = 2 ** (bits - 1), weight.shape[1]
    steps = spread(scales.float(), group, inputs)[:, order]
    left = weight.float()[:, order].clone()
    codes = torch.empty_like(left)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        own, errors = left[:, start:end].clone(), torch.empty_like(left[:, start:end])
        corner = factor[start:end, start:end]
        for column in range(end - start):
            step = steps[:, start + column]
            code = (own[:, column] / step).round_().clamp_(-most, most - 1)
            codes[:, start + column] = code
            errors[:, column] = (own[:, column] - code * step) / corner[column, column]
            own[:, column + 1 :] -= errors[:, column, None] * corner[column, None, column + 1 :]
        left[:, end:] -= errors @ factor[start:end, end:]
    placed = torch.empty_like(codes)
    placed[:, order] = codes
    return Rounded(placed.to(torch.int8), scales, bits, group)


def _inverse_factor(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"] | None:
    """Return the upper Cholesky factor of the inverse of a Gram with a ridge, float32; None where there is none."""
    mean = float(gram.diagonal().mean())
    ridge = _RIDGE * mean if mean > 0 else 1.0
    for _ in range(_TRIES):
        damped = gram.clone()
        damped.diagonal().add_(ridge)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed) and bool(upper.isfinite().all()):
                return upper.float()
        ridge *= _GROWTH
    return None
