"""Gram statistics of a least-squares problem ``min over W of || B - X W ||^2``: everything a solver needs of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.shapes import Float


@dataclass(frozen=True, slots=True)
class Gram:
    """Sufficient statistics, in float64, over ``tokens`` rows of X.

    Attributes:
        G: ``X^T X``, (k, k).
        C: ``X^T B``, (k, d).
        energy: ``||B||_F^2``.
        tokens: Number of rows.
    """

    G: Float[Tensor, "k k"]
    C: Float[Tensor, "k d"]
    energy: float
    tokens: int

    @classmethod
    def of(cls, X: Float[Tensor, "n k"], B: Float[Tensor, "n d"]) -> Gram:
        """Compute the statistics of one batch; products in the format of X, sums over batches in float64."""
        return cls((X.T @ X).double(), (X.T @ B.to(X.dtype)).double(), float(B.double().square().sum()), X.shape[0])

    @classmethod
    def with_bias(cls, X: Float[Tensor, "n k"], B: Float[Tensor, "n d"]) -> Gram:
        """Compute the statistics of one batch with a last column of ones beside X, whose weight is the bias."""
        products = cls.of(X, B)
        k = X.shape[1]
        G = torch.empty(k + 1, k + 1, dtype=torch.float64, device=X.device)
        G[:k, :k] = products.G
        G[k, :k] = G[:k, k] = X.sum(0, dtype=torch.float32)
        G[k, k] = X.shape[0]
        C = torch.cat([products.C, B.sum(0, dtype=torch.float64)[None, :]])
        return cls(G, C, products.energy, products.tokens)

    @classmethod
    def zeros(cls, k: int, d: int, device: torch.device) -> Gram:
        """Give the statistics of no data."""
        return cls(
            torch.zeros(k, k, dtype=torch.float64, device=device),
            torch.zeros(k, d, dtype=torch.float64, device=device),
            0.0,
            0,
        )

    def __add__(self, other: Gram) -> Gram:
        """Merge the statistics of two batches, or of two workers."""
        return Gram(self.G + other.G, self.C + other.C, self.energy + other.energy, self.tokens + other.tokens)

    def relative_residual(self, W: Float[Tensor, "k d"]) -> float:
        """``||B - X W||^2 / ||B||^2`` from the statistics alone; 0 where there is no energy."""
        if self.energy == 0:
            return 0.0
        weights = W.double()
        squared = self.energy - 2 * (weights * self.C).sum() + (weights * (self.G @ weights)).sum()
        return max(0.0, float(squared)) / self.energy
