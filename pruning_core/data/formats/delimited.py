"""CSV and its like: cells of text between separators, by Python's csv module. Torch-free."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from pruning_core.data.faults import not_utf8
from pruning_core.data.formats.source import LARGEST_ROW, Asked, FileTable, legible, open_text, unreadable
from pruning_core.errors import DatasetInvalid

# Characters of a cell; the csv module takes four bytes for each.
_LARGEST_CELL = 2**24
_SEPARATORS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class Delimited(FileTable):
    """A file of separated cells. The separator is the one that fits the header best; its first row names the columns."""

    typed = False
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self, path: Path, name: str, asked: Asked) -> None:
        self.path = path
        self.name = name
        usual = "\t" if ".tsv" in path.suffixes else ","
        self._separator, header = _sniff(path, asked, usual)
        self.columns = tuple(map(legible, header))
        self.notes = (
            ()
            if self._separator == usual
            else (f"{path.name} separates its columns by {_SEPARATORS[self._separator]}, and was read so",)
        )

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows."""
        places = [self.columns.index(name) for name in names]
        records = _records(self.path, self._separator)
        next(records, None)
        for line, row in records:
            if len(row) != len(self.columns):
                raise self._ragged(line, row)
            yield tuple([row[place] for place in places])

    def _ragged(self, line: int, row: Sequence[str]) -> DatasetInvalid:
        count = f"{len(row)} cell{'' if len(row) == 1 else 's'}"
        return unreadable(
            self.path,
            f"the row in line {line} has {count}, and the header has {len(self.columns)}; a cell that holds a separator, a "
            'line break or a quotation mark must stand in quotation marks, and a mark in it is doubled ("")',
        )


def _sniff(path: Path, asked: Asked, usual: str) -> tuple[str, Sequence[str]]:
    """Find the separator by which the header names what is asked, and by which the first row has as many cells.

    Raises:
        DatasetInvalid: The file is empty, or is no text.
    """
    best: tuple[tuple[int, bool, int], str, Sequence[str]] | None = None
    fault: DatasetInvalid | None = None
    for separator in dict.fromkeys((usual, *_SEPARATORS)):
        records = _records(path, separator)
        try:
            first = next(records, None)
            second = next(records, None)
        except DatasetInvalid as error:
            fault = fault or error
            continue
        if first is None:
            raise DatasetInvalid(f"{path.name} has no row", param="task.dataset")
        header = first[1]
        if any("\0" in cell for cell in header):  # UTF-16 without its mark
            raise not_utf8(path.name, "task.dataset")
        agrees = len(header) > 1 and second is not None and len(second[1]) == len(header)
        merit = (sum(name in header for name in asked.names), agrees, len(header))
        if best is None or merit > best[0]:
            best = (merit, separator, header)
    if best is None:
        assert fault is not None, "one of them was tried"
        raise fault
    return best[1], best[2]


class _Lines:
    """Lines of a file, of which those of one row are bounded together.

    Attributes:
        held: Characters since the last row ended.
        ended: Whether the file has no more lines.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self.held = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LARGEST_ROW + 1)
        self.held += len(line)
        if self.held > LARGEST_ROW:
            raise unreadable(
                self._path,
                f"a row has more than {LARGEST_ROW} characters; a quotation mark is never closed, or lines do not end",
            )
        if not line:
            self.ended = True
            raise StopIteration
        return line


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, header included, each with the number of its first line."""
    csv.field_size_limit(_LARGEST_CELL)  # of the process, and asked at every cell
    with open_text(path) as file:
        lines = _Lines(path, file)
        reader = csv.reader(lines, delimiter=separator)
        line = 1
        try:
            for row in reader:
                if lines.ended:
                    raise unreadable(
                        path,
                        f'a quotation mark in the row of line {line} is never closed; a mark within a cell is doubled ("")',
                    )
                if row and (len(row) > 1 or row[0].strip()):
                    yield line, row
                lines.held = 0
                line = reader.line_num + 1
        except csv.Error as error:
            too_long = "field limit" in str(error)
            what = f"a cell has more than {_LARGEST_CELL} characters" if too_long else "its cells cannot be told apart"
            raise unreadable(path, f"line {line}: {what}; a quotation mark may be missing") from error
