"""Precision of matrix products: the choice of the dtype, and the context that applies it.

Only matrix products run in the low-precision dtype. Residual streams, normalisation, sums over tokens and every solve stay in
float32 or float64, so that rounding does not carry over from one step to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning_core.spec.prune import Precision


def matmul_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products: bfloat16 if asked for, or with ``auto`` if the hardware multiplies it."""
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def products_in(dtype: torch.dtype, device: torch.device) -> Generator[None]:
    """Run linear layers in a dtype and everything else in float32. Attention runs in it too, except in bfloat16 on a CPU."""
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16))
        if dtype == torch.bfloat16 and device.type == "cpu":
            stack.enter_context(_AttentionInFloat32())
        yield


class _AttentionInFloat32(TorchFunctionMode):
    """A mode that computes attention in float32. On CPUs, the backward pass of the bfloat16 kernel is seven times slower."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            args = tuple(_widened(value) for value in args)
            return func(*args, **{name: _widened(value) for name, value in given.items()})


def _widened(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older releases of torch cannot tell; float32 is the safe choice there.
    capabilities: Callable[[], dict[str, object]] | None = getattr(torch.cpu, "get_capabilities", None)
    if device.type != "cpu" or capabilities is None:
        return False
    known = capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
