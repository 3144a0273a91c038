"""Gram statistics of a least-squares problem ``min over W of || B - X W ||^2``: all that a solver needs to know of X and B."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.machine.finite import require_finite
from pruning_core.shapes import Float, Int


@dataclass(frozen=True, slots=True)
class Gram:
    """Sufficient statistics over ``tokens`` rows of X.

    They are stored in float64, in which the solves run. The sums over rows are as exact as their accumulator (`GramSums`:
    products and their sums in float32, column sums and energy in float64).

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

    def __add__(self, other: Gram) -> Gram:
        """Add the statistics of two disjoint sets of rows."""
        return Gram(self.G + other.G, self.C + other.C, self.energy + other.energy, self.tokens + other.tokens)

    def checked(self, name: str) -> Gram:
        """Return the statistics if they are finite.

        Of ``G`` only the diagonal is checked, which bounds all its other entries (Cauchy-Schwarz inequality).

        Args:
            name: Module path of the matrix that the problem is for.

        Raises:
            NotFinite: The matrix's inputs or targets are NaN or infinite.
        """
        require_finite(self.G.diagonal(), f"the Gram of what {name} reads on the calibration samples")
        require_finite(self.energy, f"the energy of what {name} should give on the calibration samples")
        require_finite(self.C, f"the cross moments of what {name} reads and should give on the calibration samples")
        return self

    def to(self, dtype: torch.dtype) -> Gram:
        """Return the statistics in another data type."""
        return Gram(self.G.to(dtype), self.C.to(dtype), self.energy, self.tokens)

    def relative_residual(self, W: Float[Tensor, "k d"]) -> float:
        """Compute ``||B - X W||^2 / ||B||^2`` from the statistics alone; 0 if the energy is zero."""
        if self.energy == 0:
            return 0.0
        weights = W.to(self.G.dtype)
        products = weights * (self.G @ weights - 2 * self.C)
        squared = self.energy + products.sum(dtype=torch.float64)
        return max(0.0, float(squared)) / self.energy


# Rows in one bfloat16 product. The result of each product is rounded; over many products the rounding errors average out.
_ROWS = 1024


class GramSums:
    """Accumulator of a problem's statistics, batch by batch. X gets a last column of ones, whose weight is the bias.

    Products are summed in float32, columns and energy in float64. The result is float64, in which the solves run. For
    bfloat16 products on a CPU rows are collected first: a product has a fixed cost, and a batch may have only a few rows.
    """

    def __init__(self, k: int, d: int, dtype: torch.dtype, device: torch.device) -> None:
        """Start with no rows.

        Args:
            k: Columns of X without the ones.
            d: Columns of B.
            dtype: Data type of the products.
            device: Device of the products.
        """
        self._dtype = dtype
        self._gram = torch.zeros(k, k, device=device)
        self._cross = torch.zeros(k, d, device=device)
        self._x = torch.zeros(k, dtype=torch.float64, device=device)
        self._b = torch.zeros(d, dtype=torch.float64, device=device)
        self._energy = torch.zeros((), dtype=torch.float64, device=device)
        self._rows = 0
        self._waiting: tuple[Tensor, Tensor] | None = None
        self._filled = 0

    def add_(self, X: Float[Tensor, "n k"], B: Float[Tensor, "n d"], rows: Int[Tensor, " m"]) -> None:
        """Add some rows of a batch."""
        if not len(rows):
            return
        if self._dtype == torch.bfloat16 and X.device.type == "cpu":
            while len(rows):
                rows = rows[self._collect(X, B, rows) :]
        else:  # a GPU is fast in float32, and the rounding errors of its few large products would not average out
            self._multiply(X.index_select(0, rows).float(), B.index_select(0, rows))

    def result(self) -> Gram:
        """Return the statistics of all rows so far."""
        self._flush()
        k, d = self._cross.shape
        G = torch.empty(k + 1, k + 1, dtype=torch.float64, device=self._gram.device)
        G[:k, :k] = self._gram
        G[k, :k] = G[:k, k] = self._x
        G[k, k] = self._rows
        C = torch.empty(k + 1, d, dtype=torch.float64, device=self._cross.device)
        C[:k] = self._cross
        C[k] = self._b
        return Gram(G, C, float(self._energy), self._rows)

    def _collect(self, X: Float[Tensor, "n k"], B: Float[Tensor, "n d"], rows: Int[Tensor, " m"]) -> int:
        """Copy as many rows as the buffer has room for, and multiply the buffer once it is full. Return the number copied."""
        if self._waiting is None:
            k, d = self._cross.shape
            self._waiting = X.new_empty(_ROWS, k, dtype=self._dtype), X.new_empty(_ROWS, d, dtype=self._dtype)
        taken = rows[: _ROWS - self._filled]
        place = slice(self._filled, self._filled + len(taken))
        for buffer, values in zip(self._waiting, (X, B), strict=True):
            buffer[place] = values.index_select(0, taken)
        self._filled += len(taken)
        if self._filled == _ROWS:
            self._flush()
        return len(taken)

    def _flush(self) -> None:
        if self._waiting is not None and self._filled:
            self._multiply(*(buffer[: self._filled] for buffer in self._waiting))
            self._filled = 0

    def _multiply(self, X: Float[Tensor, "m k"], B: Float[Tensor, "m d"]) -> None:
        if X.dtype == torch.float32:
            self._gram.addmm_(X.T, X)
            self._cross.addmm_(X.T, B)
        else:
            self._gram += X.T @ X
            self._cross += X.T @ B
        self._x += X.sum(0, dtype=torch.float32)
        self._b += B.sum(0, dtype=torch.float32)
        self._energy += torch.linalg.vector_norm(B, dtype=torch.float32).double().square()
        self._rows += len(X)
