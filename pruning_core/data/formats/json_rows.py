"""JSON: objects one after the other (JSON Lines), or in one array, read one at a time. Torch-free.

Only the columns that are asked for matter: what another holds may be anything that JSON allows. The columns of a file are the
names in its first rows; a name that is asked for is looked for in more of them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TextIO, cast

from pruning_core.data.formats.source import LARGEST_ROW, Asked, FileTable, legible, open_text, unreadable
from pruning_core.errors import DatasetInvalid

_CHUNK = 2**18
_HEAD_ROWS = 1000
_MOST_ROWS_FOR_NAMES = 100_000  # rows in which a name that is asked for is looked for
_BLANK = re.compile(r"[ \t\r\n]*")
_NEEDS = "it needs one object a line, or one array of objects"

Row = Mapping[str, Any]


class JsonRows(FileTable):
    """A file of JSON objects."""

    typed = True
    may_lack = True
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self, path: Path, name: str, asked: Asked) -> None:
        self.path = path
        self.name = name
        self._asked = asked
        with open_text(path) as file:
            scanner = _Scanner(path, file)
            rows = scanner.rows(asked)
            known: dict[str, str] = {}
            for row in itertools.islice(rows, _HEAD_ROWS):
                known.update({legible(key): key for key in row})
            for row in itertools.islice(rows, _MOST_ROWS_FOR_NAMES):
                if all(column in known for column in asked.names):
                    break
                known.update({column: column for column in asked.names if column in row})
            self.notes = tuple(scanner.notes)
        if not known:
            raise DatasetInvalid(f"{path.name} has no row", param="task.dataset")
        self._known = known
        self.columns = tuple(known)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows. A key that an object does not have is a missing value."""
        keys = [self._known.get(name, name) for name in names]
        with open_text(self.path) as file:
            for row in _Scanner(self.path, file).rows(self._asked):
                yield tuple([row.get(key) for key in keys])


class _Scanner:
    """Values of a file in turn. What has been read stays in memory until its value is whole, within a bound.

    Attributes:
        notes: What was guessed of the file's shape.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._at = 0
        self._line = 1  # of the text's beginning
        self._ended = False
        self.notes: list[str] = []

    def rows(self, asked: Asked) -> Iterator[Row]:
        """Yield the objects.

        Raises:
            DatasetInvalid: The file is no JSON, or does not hold objects alone.
        """
        if self._next() == "[":
            yield from self._array()
            return
        if not self._next():
            return
        first = self._object()
        if not self._next():
            yield from self._unwrapped(first, asked)
            return
        yield first
        while self._next():
            yield self._object()

    def _array(self) -> Iterator[Row]:
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            while True:
                yield self._object()
                follows = self._next()
                self._at += 1
                if follows == "]":
                    break
                if follows != ",":
                    self._fail("the array has no end: the file is truncated" if not follows else "a comma is missing")
        if self._next():
            self._fail("something follows the array")

    def _unwrapped(self, only: Row, asked: Asked) -> Iterator[Row]:
        """Yield the rows of a file that is one object: it may be a row, hold the rows under a name, or the columns' values."""
        by_column = _columns_of(only, asked, lists=".json" in self._path.suffixes)
        if by_column is not None:
            self.notes.append(f"{self._path.name} holds its values by column, and was read so")
            yield from (dict(zip(by_column, row, strict=True)) for row in zip(*by_column.values(), strict=True))
            return
        inside = [name for name, value in only.items() if _are_objects(value)]
        if len(inside) == 1 and not any(name in only for name in asked.names):
            self.notes.append(f"{self._path.name} holds its rows under {legible(inside[0])[:64]!r}, and was read so")
            yield from only[inside[0]]
            return
        yield only

    def _next(self) -> str:
        """Return the next character that is not blank, without moving past it; an empty text at the end."""
        while True:
            found = _BLANK.match(self._text, self._at)
            assert found is not None, "it matches nothing, too"
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _object(self) -> Row:
        if self._next() != "{":
            self._fail(f"{_found(self._next())} stands where an object should begin")
        decode = _DECODER
        while True:
            try:
                value, self._at = decode.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                within = error.pos - self._at
                if not self._more():
                    self._at += within
                    self._fail(f"{error.msg[:1].lower()}{error.msg[1:]}".removesuffix(" at"))
            except RecursionError:
                self._fail("it is nested too deeply")
            except ValueError:  # a whole number of more digits than Python takes
                decode = _LENIENT
            else:
                return cast("Row", value)

    def _more(self) -> bool:
        """Read on; return whether there was more. The text doubles, so that a long value is not decoded too often."""
        if self._ended:
            return False
        kept = len(self._text) - self._at
        if kept >= LARGEST_ROW:
            self._fail(f"an object has more than {LARGEST_ROW} characters")
        self._line += self._text.count("\n", 0, self._at)
        part = self._file.read(max(_CHUNK, kept))
        self._ended = not part
        self._text, self._at = self._text[self._at :] + part, 0
        return not self._ended

    def _fail(self, why: str) -> NoReturn:
        line = self._line + self._text.count("\n", 0, self._at)
        raise unreadable(self._path, f"line {line} is not as it should be ({why}); {_NEEDS}")


_DECODER = json.JSONDecoder()
_LENIENT = json.JSONDecoder(parse_int=float)


def _found(character: str) -> str:
    return "the file's end" if not character else repr(legible(character))


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in cast("list[object]", value))


def _columns_of(only: Row, asked: Asked, *, lists: bool) -> Mapping[str, Sequence[Any]] | None:
    """Return an object's values by column, where it can be nothing but that: all as long as each other, or by the same numbers.

    Args:
        only: The object.
        asked: What will be read. Where words are asked for, a list of texts is a row's and no column.
        lists: Whether lists may be columns.
    """
    values = list(only.values())
    if not values:
        return None
    if all(isinstance(value, dict) for value in values):
        numbers = list(values[0])
        if numbers and all(list(value) == numbers for value in values) and all(number.isdecimal() for number in numbers):
            return {name: list(value.values()) for name, value in only.items()}
        return None
    if not lists or not all(isinstance(value, list) and len(value) > 1 for value in values):
        return None
    if len({len(value) for value in values}) > 1 or (asked.nested and not all(isinstance(item, list) for item in values[0])):
        return None
    return None if any(_are_objects(value) for value in values) else only
