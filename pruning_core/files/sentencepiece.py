"""Files of SentencePiece: the number of their pieces, without the library. Torch-free.

A file is a message of protocol buffers; its repeated field 1 is the list of pieces.
"""

from __future__ import annotations

from pathlib import Path

_LARGEST_BYTES = 48 * 2**20
_PIECES = 1
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
_LONGEST_VARINT = 10


def piece_count(path: Path) -> int:
    """Count the pieces of a model of SentencePiece's; 0 where the file is none, or is truncated.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST_BYTES)
    count, at = 0, 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, field = key & 7, key >> 3
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _LENGTH:
            length, at = _varint(data, at)
            at += length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            return 0
        if field == 0 or at > len(data):
            return 0
        count += field == _PIECES and kind == _LENGTH
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that stands at a place, and the place behind it; a place behind the end where there is none."""
    number = shift = 0
    for place in range(at, min(at + _LONGEST_VARINT, len(data))):
        number |= (data[place] & 127) << shift
        if data[place] < 128:
            return number, place + 1
        shift += 7
    return 0, len(data) + 1
