"""Precision of matrix products: the choice of the dtype, the context that applies it, and where a dtype is faster.

Only matrix products run in the low-precision dtype. Residual streams, normalisation, sums over tokens and every solve stay in
float32 or float64, so that rounding does not carry over from one step to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning_core.machine.timing import timed
from pruning_core.spec.calibration import Precision


def matmul_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products: bfloat16 if asked for, or with ``auto`` if the hardware is faster in it.

    Every GPU that multiplies bfloat16 is faster in it. Of CPUs some are half as fast, which only a measurement tells.
    """
    if precision == "auto":
        on_gpu = device.type == "cuda"
        faster = _multiplies_bfloat16(device) if on_gpu else is_faster(torch.bfloat16, device, *_TYPICAL)
        return torch.bfloat16 if faster else torch.float32
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


# A product must be this many times as fast as float32's before its rounding is worth having.
_WORTH = 1.25
_TURNS, _ROWS = 3, 256
# Inputs and outputs of a matrix of the middle sort, where the choice is for a whole model.
_TYPICAL = (768, 3072)


@cache
def is_faster(dtype: torch.dtype, device: torch.device, inner: int, outer: int) -> bool:
    """Return whether a device multiplies matrices of a type clearly faster than those of float32, as measured once a process.

    What a processor says of itself does not tell: with AVX512-BF16 but without AMX, some are twice as fast in bfloat16 and
    others half as fast. Types that a CPU has no instructions for are not tried: emulated products can take minutes.

    Args:
        dtype: bfloat16 or float16.
        device: The device.
        inner: Inputs of the matrix.
        outer: Outputs of the matrix.
    """
    if dtype == torch.float32 or not _has_instructions(dtype, device):
        return False
    operands = [
        (torch.ones(_ROWS, inner, dtype=own, device=device), torch.ones(outer, inner, dtype=own, device=device))
        for own in (torch.float32, dtype)
    ]
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(-1, _TURNS):
            for (rows, weight), kept in zip(operands, times, strict=True):
                elapsed = timed(partial(nn.functional.linear, rows, weight), device)
                if turn >= 0:
                    kept.append(elapsed)
    return min(times[0]) >= _WORTH * min(times[1])  # other processes only ever add


def _has_instructions(dtype: torch.dtype, device: torch.device) -> bool:
    if dtype == torch.bfloat16:
        return _multiplies_bfloat16(device)
    return device.type == "cuda" or any(_cpu_has(name) for name in ("avx512_fp16", "amx_fp16"))


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and any(_cpu_has(name) for name in ("avx512_bf16", "amx_bf16"))


def _cpu_has(name: str) -> bool:
    # Older releases of torch cannot tell; float32 is the safe choice there.
    capabilities: Callable[[], dict[str, object]] | None = getattr(torch.cpu, "get_capabilities", None)
    return capabilities is not None and bool(capabilities().get(name))
