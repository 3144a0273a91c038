"""Headers of safetensors files, checked as the library checks them and bounded besides. Torch-free; no weight is read.

The library is not used: the front end has neither torch nor numpy, and a truncated file must be found without reading it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pruning_core.files.bounded_json import JsonRefused, parse_json

# The library takes 100 MB. A header has about 100 bytes a tensor: a model of 90,000 tensors has 9 MB in all its files together.
MOST_HEADER_BYTES = 16 * 2**20
MOST_TENSORS = 200_000
_LONGEST_NAME = 512
_MOST_AXES = 8
_LARGEST_AXIS = 2**40
_MOST_VALUES = 2**53  # far beyond any disk

DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class HeaderRefused(ValueError):
    """The file is not a valid safetensors file. The message ends a sentence that begins with the name of the file."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One entry of a header.

    Attributes:
        name: Stored name.
        dtype: Type, as safetensors names types.
        shape: Shape.
        values: Number of values.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: int


def read_header(path: Path) -> list[StoredTensor]:
    """Read and check the header of one safetensors file.

    Raises:
        HeaderRefused: The file is damaged, truncated or out of bounds.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise HeaderRefused("is corrupt or truncated: it is not a valid safetensors file")
        if length > MOST_HEADER_BYTES:
            raise HeaderRefused(f"has a header of more than {MOST_HEADER_BYTES} bytes; save the model in several files")
        encoded = file.read(length)
    try:
        header = parse_json(encoded, constants=False)
    except JsonRefused as error:
        raise HeaderRefused(f"is corrupt or truncated: its header {error}") from None
    if not isinstance(header, dict):
        raise HeaderRefused("is corrupt or truncated: its header is no JSON object")
    return _tensors(cast("dict[str, object]", header), size - 8 - length)


def _tensors(header: Mapping[str, object], data_bytes: int) -> list[StoredTensor]:
    if len(header) > MOST_TENSORS:
        raise HeaderRefused(f"holds more than {MOST_TENSORS} tensors; save the model in several files")
    tensors: list[StoredTensor] = []
    places: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            if entry is not None and not _is_texts(entry):
                raise HeaderRefused("is corrupt: its __metadata__ must be an object of texts")
            continue
        if len(name) > _LONGEST_NAME:
            raise HeaderRefused(f"is corrupt: it names a tensor in more than {_LONGEST_NAME} letters")
        tensor, place = _tensor(name, entry)
        tensors.append(tensor)
        places.append(place)
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise HeaderRefused("is corrupt or truncated: its tensors overlap, or leave bytes to nobody")
        end = stop
    if end != data_bytes:
        raise HeaderRefused("is corrupt or truncated: it has other bytes than its header says")
    return tensors


def _tensor(name: str, entry: object) -> tuple[StoredTensor, tuple[int, int]]:
    shown = name[:128]
    if not isinstance(entry, dict):
        raise HeaderRefused(f"is corrupt: what it says of {shown} is no JSON object")
    fields = cast("dict[str, object]", entry)
    dtype, shape, place = fields.get("dtype"), _integers(fields.get("shape")), _integers(fields.get("data_offsets"))
    if not isinstance(dtype, str) or len(dtype) > 32:
        raise HeaderRefused(f"is corrupt: it gives {shown} no type")
    if shape is None or len(shape) > _MOST_AXES or not all(0 <= axis <= _LARGEST_AXIS for axis in shape):
        raise HeaderRefused(
            f"is corrupt: the shape of {shown} must be a list of at most {_MOST_AXES} whole numbers, each from 0 to 2^40"
        )
    if place is None or len(place) != 2 or not 0 <= place[0] <= place[1] <= _MOST_VALUES:
        raise HeaderRefused(f"is corrupt: the data_offsets of {shown} must be two whole numbers, the smaller one first")
    values = _product(shape)
    if values is None or (dtype in DTYPE_BYTES and place[1] - place[0] != values * DTYPE_BYTES[dtype]):
        raise HeaderRefused(f"is corrupt or truncated: {shown} has other bytes than its shape needs")
    return StoredTensor(name, dtype, tuple(shape), values), (place[0], place[1])


def _integers(found: object) -> list[int] | None:
    """Return a list of integers as such; None for anything else, ``true`` and ``1.0`` included."""
    if not isinstance(found, list):
        return None
    items = cast("list[object]", found)
    return cast("list[int]", items) if all(type(item) is int for item in items) else None


def _product(shape: list[int]) -> int | None:
    """Multiply the axes; None where the product exceeds every disk. No intermediate product is larger than two axes'."""
    if 0 in shape:
        return 0
    product = 1
    for axis in shape:
        product *= axis
        if product > _MOST_VALUES:
            return None
    return product


def _is_texts(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(value, str) for value in cast("dict[str, object]", entry).values())
