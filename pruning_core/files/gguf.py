"""GGUF files of llama.cpp's as models that come in: their headers, bounded, and whether they are whole. Torch-free.

The format is that of ggml's docs/gguf.md, version 2 and 3. Values of tensors are not read here.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

from pruning_core.errors import ModelUnreadable

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_ENTRIES, _MOST_TENSORS, _MOST_ITEMS = 10_000, 1_000_000, 4_000_000
_LONGEST_TEXT, _LONGEST_NAME, _MOST_AXES = 16 * 2**20, 1024, 8
_TEXT, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FORMATS = {2: "<H", 4: "<I", 5: "<i", 7: "<?", 10: "<Q", 11: "<q"}

# Name, values in a block and bytes of a block of ggml's types, by their numbers.
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    30: ("BF16", 1, 2),
    28: ("F64", 1, 8),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
}
FLOATS = frozenset({"F32", "F16", "BF16", "F64"})


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """The header of a GGUF file.

    Attributes:
        path: The file.
        architecture: As llama.cpp names it.
        values: Number of values by type.
        end: Where the last tensor ends, in bytes.
        puts_space: Whether the tokenizer puts a space before a text; None where the file does not say.
    """

    path: Path
    architecture: str
    values: Mapping[str, int]
    end: int
    puts_space: bool | None = None

    @property
    def types(self) -> str:
        """The types in words, the commonest first."""
        return ", ".join(name for name, _ in Counter(self.values).most_common())

    @property
    def commonest(self) -> str:
        """The type of most values."""
        return max(self.values, key=lambda name: self.values[name])

    @property
    def is_quantised(self) -> bool:
        """Whether most values are of a type that is no plain float."""
        packed = sum(count for name, count in self.values.items() if name not in FLOATS)
        return 2 * packed > sum(self.values.values())


def gguf_in(folder: Path) -> Path | None:
    """Return the GGUF file of a folder that has no config.json; None where it holds none.

    Raises:
        ModelUnreadable: It holds several.
    """
    if not folder.is_dir() or (folder / "config.json").is_file():
        return None
    found = sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        shown = ", ".join(path.name[:64] for path in found[:3])
        raise ModelUnreadable(
            f"the folder holds {len(found)} GGUF files ({shown}{', ...' if len(found) > 3 else ''}); give a folder with the "
            "one that you mean. One that is split into parts is joined by llama-gguf-split --merge",
            param="model",
        )
    return found[0] if found else None


def read_gguf(path: Path) -> GgufFacts:
    """Read the header of a GGUF file, and check that the file is as long as it says.

    Raises:
        ModelUnreadable: It is no GGUF file, or is cut off, or has a type that is not known here.
    """
    try:
        with path.open("rb") as file:
            facts = _Reader(file, path).facts()
            size = path.stat().st_size
    except OSError:
        raise ModelUnreadable(f"{path.name} cannot be read by this machine", param="model") from None
    if size < facts.end:
        raise ModelUnreadable(
            f"{path.name} is cut off: its header tells of {facts.end:,} bytes, and the file has {size:,}; fetch it again",
            param="model",
        )
    return facts


class _Reader:
    """Reads a header from its beginning to its end."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path

    def facts(self) -> GgufFacts:
        """Read the header."""
        if self._take(4) != _MAGIC:
            raise self._refused("is no GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise self._refused(f"is of version {version} of GGUF, or written on a big-endian machine; 2 and 3 are read here")
        tensors, entries = self._small("<Q", _MOST_TENSORS), self._small("<Q", _MOST_ENTRIES)
        known: dict[str, object] = {}
        for _ in range(entries):
            name = self._text(_LONGEST_NAME)
            known[name] = self._value(self._number("<I"))
        return self._laid_out(tensors, known)

    def _laid_out(self, tensors: int, known: Mapping[str, object]) -> GgufFacts:
        values, end = Counter[str](), 0
        for _ in range(tensors):
            self._text(_LONGEST_NAME)
            shape = [self._number("<Q") for _ in range(self._small("<I", _MOST_AXES))]
            number, offset = self._number("<I"), self._number("<Q")
            if number not in TYPES:
                raise self._refused(f"holds a tensor of type {number}, which is not known here")
            name, block, size = TYPES[number]
            values[name] += prod(shape)
            end = max(end, offset + -(-prod(shape) // block) * size)
        alignment = known.get("general.alignment", _ALIGNMENT)
        step = alignment if isinstance(alignment, int) and 0 < alignment <= 2**20 else _ALIGNMENT
        architecture = known.get("general.architecture")
        if not isinstance(architecture, str) or not tensors:
            raise self._refused("holds no model: it names no architecture, or has no tensor")
        space = known.get("tokenizer.ggml.add_space_prefix")
        start = -(-self._file.tell() // step) * step
        return GgufFacts(self._path, architecture[:64], values, start + end, space if isinstance(space, bool) else None)

    def _value(self, kind: int, *, inner: bool = False) -> object:
        """Read a value; of an array, nothing is kept."""
        if kind == _TEXT:
            return self._text(_LONGEST_TEXT)
        if kind == _ARRAY and not inner:
            of, count = self._number("<I"), self._small("<Q", _MOST_ITEMS)
            if of in _SIZES:
                self._file.seek(_SIZES[of] * count, 1)  # beyond the end, the next read finds nothing
            else:
                for _ in range(count):
                    self._value(of, inner=True)
            return None
        if kind not in _SIZES:
            raise self._refused(f"has an entry of type {kind}, which is not known here")
        raw = self._take(_SIZES[kind])
        return struct.unpack(_FORMATS[kind], raw)[0] if kind in _FORMATS else None

    def _text(self, longest: int) -> str:
        return self._take(self._small("<Q", longest)).decode("utf-8", errors="replace")

    def _small(self, form: str, most: int) -> int:
        number = self._number(form)
        if number > most:
            raise self._refused(f"has a header that counts {number:,} of something, more than any model has")
        return number

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _take(self, count: int) -> bytes:
        raw = self._file.read(count)
        if len(raw) < count:
            raise self._refused("is cut off within its header; fetch it again")
        return raw

    def _refused(self, why: str) -> ModelUnreadable:
        return ModelUnreadable(f"{self._path.name} {why}", param="model")
