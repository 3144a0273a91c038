"""The guard between stages: NaN and infinity become an error that names what holds them, never a result.

NaN sorts, compares and averages without a sound, so that one in a weight or a score decides what is pruned. Each stage that
hands numbers on checks them here, and says which layer they belong to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruning_core.errors import NotFinite


def is_finite(values: Tensor | float) -> bool:
    """Tell whether all values are finite numbers.

    Cost: one pass over the values and no copy of them: the least and the greatest are NaN where any value is.
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
        values: Of one layer, matrix or measurement; what has no memory or no fraction is taken for finite.
        what: Names them, layer included: the subject of the error's sentence.
        param: Field of the spec to change, where there is one.

    Raises:
        NotFinite: One of them is NaN or infinite.
    """
    if is_finite(values):
        return
    found = values.detach() if isinstance(values, Tensor) else torch.tensor(values)
    count, size = int((~found.isfinite()).sum()), found.numel()
    share = f"{count} of {size} values are" if size > 1 else "the value is"
    raise NotFinite(f"{what}: {share} NaN or infinite, and no result can be made of that", param=param)
