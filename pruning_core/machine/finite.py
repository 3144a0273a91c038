"""Guard against NaN and infinity between stages: they become an error that names their layer, never a result.

NaN sorts, compares and averages without an error, so a single one in a weight or a score would decide what is pruned. Each
stage checks here the numbers that it passes on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruning_core.errors import NotFinite


def is_finite(values: Tensor | float) -> bool:
    """Return whether all values are finite numbers.

    Cost: one pass over the values without a copy. It suffices to check the smallest and the largest value: both are NaN if any
    value is.
    """
    if not isinstance(values, Tensor):
        return math.isfinite(values)
    if values.is_meta or not values.numel() or not values.is_floating_point():
        return True
    least, greatest = torch.aminmax(values.detach())
    return bool((least.isfinite() & greatest.isfinite()).item())


def require_finite(values: Tensor | float, what: str, *, param: str | None = None) -> None:
    """Check that all values are finite numbers.

    Args:
        values: Values of one layer, matrix or measurement. Tensors of integers or on the meta device count as finite.
        what: Name of the values, with their layer: the subject of the error message.
        param: Field of the spec to change, if there is one.

    Raises:
        NotFinite: A value is NaN or infinite.
    """
    if is_finite(values):
        return
    found = values.detach() if isinstance(values, Tensor) else torch.tensor(values)
    count, size = int((~found.isfinite()).sum()), found.numel()
    share = f"{count} of {size} values are" if size > 1 else "the value is"
    raise NotFinite(f"{what}: {share} NaN or infinite, and no result can be made of that", param=param)
