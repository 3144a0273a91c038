"""Gram statistics of a least-squares problem ``min over W of || B - X W ||^2``: everything a solver needs of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.machine.finite import require_finite
from pruning_core.shapes import Float, Int


@dataclass(frozen=True, slots=True)
class Gram:
    """Sufficient statistics over ``tokens`` rows of X.

    Stored in float64, where the solves are; sums over rows are as exact as whoever adds them up (`GramSums`: products and
    their sums in float32, means and energy in float64).

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
        """Merge the statistics of two batches, or of two workers."""
        return Gram(self.G + other.G, self.C + other.C, self.energy + other.energy, self.tokens + other.tokens)

    def checked(self, name: str) -> Gram:
        """Return the statistics if they are finite.

        The diagonal and the energy bound all other values (Cauchy and Schwarz), so that they alone are looked at for ``G``.

        Args:
            name: Module path of the matrix that the problem is for.

        Raises:
            NotFinite: What the matrix reads or should give is NaN or infinite.
        """
        require_finite(self.G.diagonal(), f"the Gram of what {name} reads on the calibration samples")
        require_finite(self.energy, f"the energy of what {name} should give on the calibration samples")
        require_finite(self.C, f"the cross moments of what {name} reads and should give on the calibration samples")
        return self

    def to(self, dtype: torch.dtype) -> Gram:
        """Give the statistics in another format."""
        return Gram(self.G.to(dtype), self.C.to(dtype), self.energy, self.tokens)

    def relative_residual(self, W: Float[Tensor, "k d"]) -> float:
        """``||B - X W||^2 / ||B||^2`` from the statistics alone; 0 where there is no energy."""
        if self.energy == 0:
            return 0.0
        weights = W.to(self.G.dtype)
        products = weights * (self.G @ weights - 2 * self.C)
        squared = self.energy + products.sum(dtype=torch.float64)
        return max(0.0, float(squared)) / self.energy


# A product in bfloat16 is rounded when it is written: so many rows at a time, the roundings of many products average out.
_ROWS = 1024


class GramSums:
    """Accumulates, batch by batch, the statistics of a problem with a last column of ones beside X, whose weight is the bias.

    Products over batches are summed in float32, columns and energy in float64; the result is float64, where the solves are.
    In bfloat16 on a CPU rows are collected first: a product has a fixed cost, and a batch may have but a few rows for a
    problem.
    """

    def __init__(self, k: int, d: int, dtype: torch.dtype, device: torch.device) -> None:
        """Start with no rows.

        Args:
            k: Columns of X without the ones.
            d: Columns of B.
            dtype: Format of the products.
            device: Where they run.
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
        """Take in some rows of a batch."""
        if not len(rows):
            return
        if self._dtype == torch.bfloat16 and X.device.type == "cpu":
            while len(rows):
                rows = rows[self._collect(X, B, rows) :]
        else:  # a GPU has the throughput for float32, and its large batches would be rounded as a whole
            self._multiply(X.index_select(0, rows).float(), B.index_select(0, rows))

    def result(self) -> Gram:
        """Give the statistics so far."""
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
        """Copy as many rows as there is room for, multiply when that was the last room, and say how many they were."""
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
