"""What is known of rows whose metric is to be drawn again: sums over them, or scores to be ranked. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowSums:
    """A metric that is a function of sums over rows. Rows that are alike in all respects are one group.

    Attributes:
        dense: What one row of each group adds to the sums for the dense model, (groups, sums); an array or a sparse array.
        pruned: The same for the pruned model.
        value: Computes the metric from sums, (..., sums) to (...).
        rows: Number of rows of each group.
        binary: Whether the metric is the share of rows that are right, the first of two sums of zeros and ones.
    """

    dense: Any
    pruned: Any
    value: Callable[[Floats], Floats]
    rows: Ints
    binary: bool = False

    def values(self, weights: Floats) -> tuple[Floats, Floats]:
        """Compute the metric of both models, for numbers of draws of each group, (draws, groups)."""
        return self.value(weights @ self.dense), self.value(weights @ self.pruned)


@dataclass(frozen=True, slots=True)
class RowRanks:
    """Spearman's rank correlation of each model's scores with the right ones. Each row is a group of its own."""

    dense: Floats
    pruned: Floats
    wanted: Floats

    @property
    def rows(self) -> Ints:
        """Number of rows of each group."""
        return np.ones(len(self.wanted), dtype=np.int64)

    def values(self, weights: Floats) -> tuple[Floats, Floats]:
        """Compute the metric of both models. Ranks are those among the drawn rows; ties share their middle rank."""
        drawn = weights.astype(np.float32)  # whole and half numbers, which it holds exactly
        centre = (drawn.sum(-1, keepdims=True) + 1) / 2
        wanted = _ranks(self.wanted, drawn) - centre
        weighted = drawn * wanted
        theirs = np.einsum("bn,bn->b", weighted, wanted)
        found: list[Floats] = []
        for scores in (self.dense, self.pruned):
            ranks = _ranks(scores, drawn) - centre
            both, own = np.einsum("bn,bn->b", weighted, ranks), np.einsum("bn,bn->b", drawn * ranks, ranks)
            found.append(over(both.astype(np.float64), np.sqrt(own.astype(np.float64) * theirs), math.nan))
        return found[0], found[1]

    def as_sums(self) -> RowSums:
        """Return the correlation as sums over the ranks among all rows, whose exchange within rows tests the difference."""
        weights = np.ones((1, len(self.wanted)))
        dense, pruned, wanted = (_ranks(own, weights)[0] for own in (self.dense, self.pruned, self.wanted))

        def sums(own: Floats) -> Floats:
            return np.stack([own * wanted, own, own**2, wanted, wanted**2, np.ones_like(own)], axis=-1)

        return RowSums(sums(dense), sums(pruned), _correlation, self.rows)


RowForm = RowSums | RowRanks


def each(dense: Floats, pruned: Floats, value: Callable[[Floats], Floats]) -> RowSums:
    """Return a metric of the sums of each row, every row a group of its own."""
    return RowSums(dense, pruned, value, np.ones(len(dense), dtype=np.int64))


def ratios(
    dense: NDArray[Any],
    dense_of: NDArray[Any],
    pruned: NDArray[Any],
    pruned_of: NDArray[Any],
    value: Callable[[Floats], Floats] | None = None,
) -> RowSums:
    """Return one figure's sum over the rows divided by another's; ``value`` computes another metric of the two sums."""
    sides = [np.stack([part, whole], axis=-1).astype(np.float64) for part, whole in ((dense, dense_of), (pruned, pruned_of))]
    return each(sides[0], sides[1], value or ratio)


def means(dense: NDArray[Any], pruned: NDArray[Any]) -> RowSums:
    """Return the mean of a figure of each row."""
    return ratios(dense, np.ones_like(dense), pruned, np.ones_like(pruned))


def shares(dense: NDArray[np.bool_], pruned: NDArray[np.bool_]) -> RowSums:
    """Return the share of right rows; rows on which both models do alike are one group."""
    codes, rows = np.unique(2 * dense + 1 * pruned, return_counts=True)
    before, after = (np.stack([own, np.ones_like(own)], axis=-1).astype(float) for own in (codes // 2, codes % 2))
    return RowSums(before, after, ratio, rows.astype(np.int64), binary=True)


def over(part: Floats, whole: Floats, otherwise: float) -> Floats:
    """Divide, and give another number where the whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), otherwise)


def ratio(sums: Floats) -> Floats:
    """Divide the first sum by the second; NaN where that is 0."""
    return over(sums[..., 0], sums[..., 1], math.nan)


def exponential_ratio(sums: Floats) -> Floats:
    """Compute a perplexity from the sum of losses and the number of tokens."""
    return np.exp(np.minimum(ratio(sums), 700.0))


def _correlation(sums: Floats) -> Floats:
    both, own, square, wanted, wanted_square, rows = np.moveaxis(sums, -1, 0)
    spread = (rows * square - own**2) * (rows * wanted_square - wanted**2)
    return over(rows * both - own * wanted, np.sqrt(np.maximum(spread, 0.0)), math.nan)


def _ranks(scores: Floats, weights: NDArray[Any]) -> NDArray[Any]:
    """Return the middle rank of each row among the drawn rows, (draws, rows)."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    tied = weights.take(order, axis=1)
    if len(counts) < len(scores):
        tied = np.add.reduceat(tied, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=1)
    return (np.cumsum(tied, axis=1, dtype=weights.dtype) - (tied - 1) / 2).take(places, axis=1)
