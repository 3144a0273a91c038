"""Where hidden states lie between passes: in one block of memory, and beyond its budget in slower storage.

Thousands of pieces of half a megabyte, each allocated between a pass's own temporaries, would leave as much again in holes of
the heap; a block holds them without. What does not fit any more lies in an unnamed file on a CPU, in host memory on a GPU.
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
    """One tensor that is kept."""

    def read(self) -> Tensor:
        """Give the values, on the device of the computation; not to be changed in place."""
        ...

    def write(self, values: Tensor) -> None:
        """Replace the values, in the entry's own format."""
        ...


@dataclass(frozen=True, slots=True)
class _InBlock:
    values: Tensor

    def read(self) -> Tensor:
        return self.values

    def write(self, values: Tensor) -> None:
        self.values.copy_(values)


@dataclass(frozen=True, slots=True)
class _OnHost:
    values: Tensor
    device: torch.device

    def read(self) -> Tensor:
        return self.values.to(self.device)

    def write(self, values: Tensor) -> None:
        self.values.copy_(values)


@dataclass(frozen=True, slots=True)
class _InFile:
    file: BufferedRandom
    offset: int
    shape: torch.Size
    dtype: torch.dtype

    def read(self) -> Tensor:
        values = torch.empty(self.shape, dtype=self.dtype)
        self.file.seek(self.offset)
        if self.file.readinto(_bytes_of(values)) != values.nbytes:
            raise PruningError("the scratch file of hidden states was cut off")
        return values

    def write(self, values: Tensor) -> None:
        self.file.seek(self.offset)
        self.file.write(_bytes_of(values.to(self.dtype).contiguous()))


class ActivationCache:
    """Takes tensors in one format, the first ones into memory. A context manager: its end is the end of its entries.

    Args:
        numbers: How many numbers it will be given at most.
        room: How many of them may lie in memory.
        dtype: Their format.
        device: Where they are computed.
        scratch: Folder of the file for the others; the system's temporary folder when None.
    """

    def __init__(self, numbers: int, room: int, dtype: torch.dtype, device: torch.device, scratch: Path | None = None) -> None:
        """Allocate the block; the file is opened when it is needed."""
        self._left = torch.empty(min(numbers, room), dtype=dtype, device=device)
        self._scratch = scratch
        self._file: BufferedRandom | None = None
        self._end = 0

    def __enter__(self) -> Self:
        """Open; nothing happens before the first tensor."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def keep(self, values: Tensor) -> CacheEntry:
        """Copy values onto the cache."""
        entry = self._entry(values)
        entry.write(values)
        return entry

    def _entry(self, values: Tensor) -> CacheEntry:
        dtype, device = self._left.dtype, self._left.device
        if values.numel() <= self._left.numel():
            piece, self._left = self._left.split([values.numel(), self._left.numel() - values.numel()])
            return _InBlock(piece.view(values.shape))
        if device.type != "cpu":
            return _OnHost(torch.empty(values.shape, dtype=dtype), device)
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - closed by __exit__
        entry = _InFile(self._file, self._end, values.shape, dtype)
        self._end += values.numel() * dtype.itemsize
        return entry


def _bytes_of(values: Tensor) -> memoryview:
    return values.detach().view(-1).view(torch.uint8).numpy().data
