"""Tensors in files: memory-mapped where possible, copied where needed, and written where memory is short."""

from __future__ import annotations

import json
import mmap
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import torch
from torch import Tensor

from pruning_core.files.checkpoint import CheckpointFacts

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
Name = TypeVar("Name")

# Alignment of written tensors in bytes, that of torch's own allocator: kernels are fastest there, and round the same way.
_ALIGNMENT = 64


class MappedFile:
    """The bytes of a file, mapped for reading. The mapping outlives the file's name and ends with its last tensor."""

    def __init__(self, file: IO[bytes]) -> None:
        """Map an open file. The caller may close it afterwards."""
        self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __deepcopy__(self, _memo: object) -> Self:
        """Return the same mapping: copies of a model read the same file."""
        return self

    def tensor(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return the tensor that begins at a byte. It is read-only, and is copied only where its address is not aligned."""
        count = torch.Size(shape).numel()
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            if start % dtype.itemsize:
                raw = torch.frombuffer(self._bytes, dtype=torch.uint8, count=count * dtype.itemsize, offset=start)
                return raw.clone().view(dtype).view(shape)
            return torch.frombuffer(self._bytes, dtype=dtype, count=count, offset=start).view(shape)

    def forget(self, start: int, size: int) -> None:
        """Return the memory of a range to the system, which reads the file again where the range is still used."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + size - first) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._bytes.madvise(mmap.MADV_DONTNEED, first, length)


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor in a file.

    Attributes:
        file: The file.
        start: Offset of its first byte.
        shape: Its shape.
        dtype: Type in which it is stored.
    """

    file: MappedFile
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size in the file, in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def mapped(self) -> Tensor:
        """Return the values as they lie in the file, read-only."""
        return self.file.tensor(self.start, self.shape, self.dtype)

    def read(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values. On a CPU and in the stored type, they are the file's own memory and read-only."""
        stored = self.mapped()
        if device.type == "cpu" and dtype == self.dtype:
            return stored
        values = _copied(stored, dtype) if device.type == "cpu" else stored.to(device, dtype)
        self.forget()
        return values

    def forget(self) -> None:
        """Return the memory that was mapped for it to the system."""
        self.file.forget(self.start, self.bytes)


def _copied(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy into an anonymous mapping, which returns to the system as a whole. On the heap, it would leave holes."""
    if not stored.numel():
        return stored.to(dtype)
    room = mmap.mmap(-1, stored.numel() * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(room, dtype=dtype).view(stored.shape).copy_(stored)


def write_tensors(tensors: Iterable[tuple[Name, Tensor]], scratch: Path) -> dict[Name, MappedTensor]:
    """Write tensors one after the other into an unnamed file. It takes up disk space as long as one of them is in use.

    Args:
        tensors: Tensors with their keys in the result.
        scratch: A folder on the disk to write to.
    """
    places: dict[Name, tuple[int, tuple[int, ...], torch.dtype]] = {}
    with tempfile.TemporaryFile(dir=scratch) as file:
        for name, tensor in tensors:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places[name] = (file.tell(), tuple(tensor.shape), tensor.dtype)
            if tensor.numel():
                file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        file.write(bytes(1))  # an empty file cannot be mapped
        file.flush()
        mapped = MappedFile(file)
    return {name: MappedTensor(mapped, *place) for name, place in places.items()}


def map_tensors(facts: CheckpointFacts) -> dict[str, MappedTensor]:
    """Map a checkpoint's files, and return each mapped tensor by its name, without what wrappers have put into it."""
    found: dict[str, MappedTensor] = {}
    for path in facts.weight_files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            mapped = MappedFile(file)
        for name, entry in header.items():
            if name != "__metadata__":
                start = 8 + length + entry["data_offsets"][0]
                found[facts.plain.get(name, name)] = MappedTensor(mapped, start, tuple(entry["shape"]), _DTYPES[entry["dtype"]])
    return found
