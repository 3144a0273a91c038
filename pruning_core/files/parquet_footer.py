"""The footer of a Parquet file: names, types and bounds of its columns. Torch-free; no value of the file is decoded.

The front end reads it by hand instead of with a Parquet library, because it looks at files of strangers. Malformed input may
crash native code and the whole process with it. This code can only raise `ValueError`. The footer is a `FileMetaData` of
parquet.thrift in Thrift's compact encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

_MAGIC = b"PAR1"
_LARGEST_BYTES = 2**20  # of a footer; decoding is slow here, and a larger footer lists very many row groups
_DEEPEST = 16
_MOST_VALUES = 500_000  # decoded values; a value may have one byte, and takes a hundred times as much here

# From parquet.thrift: values of Type and ConvertedType, and the numbers of the fields read here.
_BYTE_ARRAY = 6
_UTF8 = 0
_INTEGERS = (None, 15, 16, 17, 18)  # no annotation, INT_8 to INT_64
_VALUES: dict[int, str] = {0: "<?", 1: "<i", 2: "<q", 4: "<f", 5: "<d"}
_FILE_SCHEMA, _FILE_ROWS, _FILE_ROW_GROUPS = 2, 3, 4
_ELEMENT_TYPE, _ELEMENT_NAME, _ELEMENT_CHILDREN, _ELEMENT_CONVERTED, _ELEMENT_LOGICAL = 1, 4, 5, 6, 10
_LOGICAL_STRING = 1
_GROUP_COLUMNS, _CHUNK_META, _META_PATH, _META_STATISTICS = 1, 3, 3, 12
_STATISTICS_MAX, _STATISTICS_MIN = 5, 6


@dataclass(frozen=True, slots=True)
class FooterColumn:
    """One top-level column of the schema. Its bounds are None unless the writer noted them for every row group."""

    name: str
    is_text: bool
    is_number: bool
    is_nested: bool
    smallest: float | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class Footer:
    """Number of rows and columns of a Parquet file."""

    rows: int
    columns: tuple[FooterColumn, ...]


class FooterTooLarge(Exception):
    """The footer is too large to decode here. The file may be sound, but nothing is known of it."""


def read_footer(path: Path) -> Footer:
    """Read the footer of a Parquet file.

    Raises:
        ValueError: The file is not a Parquet file, or is truncated or damaged.
        FooterTooLarge: The footer is larger than 1 MiB, or holds too many values.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < 12 or file.read(4) != _MAGIC:
            raise ValueError("no Parquet file")
        file.seek(size - 8)
        length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != _MAGIC or length > size - 12:
            raise ValueError("truncated")
        if length > _LARGEST_BYTES:
            raise FooterTooLarge
        file.seek(size - 8 - length)
        encoded = file.read(length)
    try:
        return _footer(_Compact(encoded).struct())
    except (KeyError, TypeError, IndexError, AttributeError, struct.error, UnicodeDecodeError) as error:
        raise ValueError("damaged") from error


def _footer(metadata: dict[int, Any]) -> Footer:
    elements = cast("list[dict[int, Any]]", metadata[_FILE_SCHEMA])
    groups = cast("list[dict[int, Any]]", metadata[_FILE_ROW_GROUPS])
    if int(metadata[_FILE_ROWS]) < 0:
        raise ValueError("a negative number of rows")
    bounds = _bounds([list(_statistics(group)) for group in groups])
    return Footer(int(metadata[_FILE_ROWS]), tuple(_column(element, bounds) for element in _top(elements)))


def _top(elements: list[dict[int, Any]]) -> Iterator[dict[int, Any]]:
    """Yield the children of the root. The schema is a flat list in which each element precedes its children."""
    at = 1
    for _child in range(int(elements[0][_ELEMENT_CHILDREN])):
        yield elements[at]
        left = 1
        while left:
            left += int(elements[at].get(_ELEMENT_CHILDREN, 0)) - 1
            at += 1


def _statistics(group: dict[int, Any]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    for chunk in group[_GROUP_COLUMNS]:
        meta = chunk[_CHUNK_META]
        if len(meta[_META_PATH]) == 1:
            noted = meta.get(_META_STATISTICS, {})
            yield meta[_META_PATH][0], noted.get(_STATISTICS_MIN), noted.get(_STATISTICS_MAX)


def _bounds(groups: list[list[tuple[bytes, bytes | None, bytes | None]]]) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Collect the bounds of each column over all row groups, leaving out columns that lack them in one group."""
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for group in groups:
        for name, smallest, largest in group:
            if smallest is not None and largest is not None:
                found.setdefault(name, []).append((smallest, largest))
    return {name: pairs for name, pairs in found.items() if len(pairs) == len(groups)}


def _column(element: dict[int, Any], bounds: dict[bytes, list[tuple[bytes, bytes]]]) -> FooterColumn:
    name: bytes = element[_ELEMENT_NAME]
    kind, converted = element.get(_ELEMENT_TYPE), element.get(_ELEMENT_CONVERTED)
    is_text = kind == _BYTE_ARRAY and (converted == _UTF8 or _LOGICAL_STRING in element.get(_ELEMENT_LOGICAL, {}))
    is_number = kind in _VALUES and converted in _INTEGERS
    is_nested = int(element.get(_ELEMENT_CHILDREN, 0)) > 0
    values: list[float] = []
    if is_number:
        form = _VALUES[cast("int", kind)]
        values = [float(struct.unpack(form, value)[0]) for pair in bounds.get(name, ()) for value in pair]
    if not all(map(math.isfinite, values)):  # NaN is not allowed in bounds, but some writers note it
        values = []
    return FooterColumn(
        name.decode("utf-8"), is_text, is_number, is_nested, min(values) if values else None, max(values) if values else None
    )


class _Compact:
    """A reader of Thrift's compact encoding. Structures become dicts by field number; errors are ValueError or IndexError."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._at = 0
        self._values = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a structure."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (header := self._byte()) != 0:
            step, kind = header >> 4, header & 0x0F
            number = number + step if step else self._integer()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise FooterTooLarge
        readers: dict[int, Callable[[], Any]] = {
            1: self._byte,  # a boolean in a list
            2: self._byte,
            3: self._byte,
            4: self._integer,
            5: self._integer,
            6: self._integer,
            7: lambda: struct.unpack("<d", self._bytes(8))[0],
            8: lambda: self._bytes(self._varint()),
            9: lambda: self._list(depth),
            10: lambda: self._list(depth),
            12: lambda: self.struct(depth + 1),
        }
        if kind not in readers:  # maps (13) and unknown types, which parquet.thrift does not use
            raise ValueError("unknown type")
        return readers[kind]()

    def _list(self, depth: int) -> list[Any]:
        header = self._byte()
        count, kind = header >> 4, header & 0x0F
        if count == 15:
            count = self._varint()
        if count > len(self._encoded) - self._at or depth > _DEEPEST:
            raise ValueError("more elements than bytes")
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _byte(self) -> int:
        value = self._encoded[self._at]
        self._at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        if count > len(self._encoded) - self._at:
            raise ValueError("more bytes than there are")
        self._at += count
        return self._encoded[self._at - count : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("no integer")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
