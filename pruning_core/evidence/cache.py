"""Activation cache: hidden states between passes, in one block of memory and beyond its budget in slower storage.

Thousands of tensors of half a megabyte, each allocated between a pass's own temporaries, would leave as much memory again in
holes of the heap; a block has no holes. Tensors beyond the block lie in an unnamed file (CPU) or in host memory (GPU).

The residual streams of some decoders hold huge values at their first tokens (Sun et al. 2024, "Massive activations in large
language models", arXiv 2402.17762), and float16 ends at 65504. A tensor with values beyond that lies in bfloat16, which has the
range of float32 in as many bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from pruning_core.errors import PruningError


class CacheEntry(Protocol):
    """One tensor in the cache."""

    def read(self) -> Tensor:
        """Return the values on the device of the computation. Callers must not change them in place."""
        ...

    def write(self, values: Tensor) -> None:
        """Replace the values, which are converted to the cache's format, or to bfloat16 where that one cannot hold them.

        Their shape may be another one, of no more values than there is room for.
        """
        ...


@dataclass(slots=True)
class _InBlock:
    room: Tensor
    values: Tensor
    wanted: torch.dtype

    def read(self) -> Tensor:
        return self.values

    def write(self, values: Tensor) -> None:
        self.values = stored_(self.room[: values.numel()].view(values.shape), values, self.wanted)


@dataclass(slots=True)
class _OnHost:
    room: Tensor
    values: Tensor
    wanted: torch.dtype
    device: torch.device

    def read(self) -> Tensor:
        return self.values.to(self.device)

    def write(self, values: Tensor) -> None:
        self.values = stored_(self.room[: values.numel()].view(values.shape), values, self.wanted)


@dataclass(slots=True)
class _InFile:
    file: BufferedRandom
    offset: int
    shape: torch.Size
    dtype: torch.dtype
    wanted: torch.dtype

    def read(self) -> Tensor:
        values = torch.empty(self.shape, dtype=self.dtype)
        self.file.seek(self.offset)
        if self.file.readinto(_bytes_of(values)) != values.nbytes:
            raise PruningError("the scratch file of hidden states was cut off")
        return values

    def write(self, values: Tensor) -> None:
        self.dtype, self.shape = _holding(values, self.wanted), values.shape
        self.file.seek(self.offset)
        self.file.write(_bytes_of(values.to(self.dtype).contiguous()))


class ActivationCache:
    """Keeps tensors in one format, the first ones in memory. A context manager: its entries are valid until it exits.

    Args:
        numbers: Upper bound of the values that will be kept.
        room: How many values may lie in memory.
        dtype: Format of the values.
        device: Device of the computation.
        scratch: Folder of the file for the others; None: the system's temporary folder.
    """

    def __init__(self, numbers: int, room: int, dtype: torch.dtype, device: torch.device, scratch: Path | None = None) -> None:
        """Allocate the block; the file is opened when it is first needed."""
        self._left = torch.empty(min(numbers, room), dtype=dtype, device=device)
        self._scratch = scratch
        self._file: BufferedRandom | None = None
        self._end = 0

    def __enter__(self) -> Self:
        """Return the cache itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the file, which deletes it."""
        if self._file is not None:
            self._file.close()

    def keep(self, values: Tensor, *, times: int = 1) -> CacheEntry:
        """Copy values into the cache.

        Args:
            values: The first ones.
            times: How many times as many values may be written later.
        """
        entry = self._entry(values, values.numel() * times)
        entry.write(values)
        return entry

    def _entry(self, values: Tensor, most: int) -> CacheEntry:
        dtype, device = self._left.dtype, self._left.device
        if most <= self._left.numel():
            room, self._left = self._left.split([most, self._left.numel() - most])
            return _InBlock(room, room, dtype)
        if device.type != "cpu":
            room = torch.empty(most, dtype=dtype)
            return _OnHost(room, room, dtype, device)
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - closed by __exit__
        entry = _InFile(self._file, self._end, values.shape, dtype, dtype)
        self._end += most * dtype.itemsize
        return entry


def stored_(room: Tensor, values: Tensor, wanted: torch.dtype) -> Tensor:
    """Copy values into room of the same shape, in place.

    Args:
        room: Memory for the values, in any format of as many bytes as the wanted one.
        values: What to store.
        wanted: The format; bfloat16 takes the place of float16 where a value is beyond it.

    Returns:
        The room, seen as values of the format that was taken.
    """
    return room.view(_holding(values, wanted)).copy_(values)


def _holding(values: Tensor, wanted: torch.dtype) -> torch.dtype:
    beyond = wanted is torch.float16 and values.numel() > 0 and float(values.abs().amax()) > torch.finfo(wanted).max
    return torch.bfloat16 if beyond else wanted


def _bytes_of(values: Tensor) -> memoryview:
    return values.detach().view(-1).view(torch.uint8).numpy().data
