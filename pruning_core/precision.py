"""Number formats: which one multiplies matrices, and the context in which it does.

Only products run in the low format. Residual streams, normalisation, sums over tokens and every solve stay in float32 or
float64, so that a step's rounding is never the next step's input.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from pruning_core.spec import Precision


def matmul_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Give the format of matrix products: bfloat16 where it is asked for, or where the device is built for it."""
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Run linear layers and attention in a format, all else in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.backends.cpu.get_cpu_capability(), torch.cpu.get_capabilities()
        return bool(capabilities[1].get("avx512_bf16") or capabilities[1].get("amx_bf16"))
    return False
