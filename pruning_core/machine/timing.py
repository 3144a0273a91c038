"""The time of one call on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def timed(forward: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one call, until the device has finished."""
    _synchronise(device)
    began = time.perf_counter()
    forward()
    _synchronise(device)
    return (time.perf_counter() - began) * 1e3


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
