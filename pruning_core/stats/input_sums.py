"""Second moments of a sublayer's inputs in the student and in the dense model. They serve every linear that reads the inputs.

The query, key and value projections read the same hidden states; so do the first FFN matrix and its gate. Let ``X`` be the
student's hidden states and ``Z`` the dense model's, each with a column of ones. ``X^T X``, ``X^T Z`` and ``Z^T Z`` give the
least-squares problem ``min || (Z W + b) - X W' - b' ||`` of each of these linears: ``C = X^T Z [W; b]``. No outputs are
computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.shapes import Float, Int
from pruning_core.stats.gram import Gram, GramSums


class InputSums:
    """Accumulator of the moments, batch by batch."""

    def __init__(self, k: int, dtype: torch.dtype, device: torch.device) -> None:
        """Start with no rows of ``k`` columns; products run in ``dtype``."""
        self._student = GramSums(k, k, dtype, device)
        self._dense = GramSums(k, 0, dtype, device)

    def add_(self, X: Float[Tensor, "n k"], Z: Float[Tensor, "n k"], rows: Int[Tensor, " m"]) -> None:
        """Add some rows of a batch."""
        self._student.add_(X, Z, rows)
        self._dense.add_(Z, Z[:, :0], rows)

    def problem(self, W: Float[Tensor, "k d"], b: Float[Tensor, " d"] | None) -> Gram:
        """Return the statistics, float64, of fitting ``X W' + b'`` to the dense outputs ``Z W + b``; the bias is last."""
        student, dense = self._student.result(), self._dense.result()
        last = torch.zeros_like(W[0]) if b is None else b
        parameters = torch.cat([W, last[None, :]]).double()
        cross = torch.cat([student.C, student.G[:, -1:]], dim=1)  # X^T [Z, 1]: the last column of X^T X is X^T 1
        energy = (parameters * (dense.G @ parameters)).sum()
        return Gram(student.G, cross @ parameters, float(energy), student.tokens)
