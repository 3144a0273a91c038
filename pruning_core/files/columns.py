"""Columns of a data file, judged by its first rows or its footer. Torch-free.

This serves the checks at submit. What stays open here (`None`, ``unknown``) is decided when the job reads the whole file with
`pruning_core.data.read`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from pruning_core.errors import DatasetInvalid
from pruning_core.files.parquet_footer import FooterTooLarge, read_footer

Kind = Literal["text", "number", "nested", "undecodable", "unknown"]

_HEAD_BYTES = 2**20
_MOST_ROWS = 1000
# Spellings that Arrow's CSV reader takes for a missing value or a boolean, in lower case.
_MISSING = frozenset(
    {"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "n/a", "na", "nan", "null"}
)
_BOOLEANS = frozenset({"true", "false"})


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as far as it is known. Bounds and names may come from some of the rows only.

    Attributes:
        kind: Kind of its values.
        smallest: Smallest number in it, or in its lists; None where unknown.
        largest: Largest number, likewise.
        names: Texts found in its lists.
    """

    kind: Kind
    smallest: float | None = None
    largest: float | None = None
    names: frozenset[str] = frozenset()


def read_columns(path: Path) -> Mapping[str, Column] | None:
    """Read the columns of a Parquet, JSON Lines or CSV file by name; None where they cannot be told without reading it whole.

    Raises:
        DatasetInvalid: The file is unreadable, in another format or another encoding, or has no row.
    """
    try:
        if path.suffix == ".parquet":
            return _of_parquet(path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        raise DatasetInvalid(f"{path.name} cannot be read", param="task.dataset") from None
    if not head.strip():
        raise _empty(path)
    whole_lines = head if len(head) < _HEAD_BYTES else head[: head.rfind(b"\n") + 1]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise not_utf8(path.name, "task.dataset")
    # Bytes that are not UTF-8 are only an error in a column that the task reads.
    text = whole_lines.decode("utf-8-sig", errors="surrogateescape")
    return _of_csv(path, text) if path.suffix == ".csv" else _of_json_lines(path, text)


def _of_parquet(path: Path) -> Mapping[str, Column] | None:
    try:
        footer = read_footer(path)
    except FooterTooLarge:
        return None
    except ValueError:
        raise DatasetInvalid(
            f"{path.name} is corrupt or truncated: it is not a valid Parquet file", param="task.dataset"
        ) from None
    if footer.rows == 0:
        raise _empty(path)
    return {
        column.name: Column(
            "nested" if column.is_nested else "text" if column.is_text else "number" if column.is_number else "unknown",
            column.smallest,
            column.largest,
        )
        for column in footer.columns
    }


def _of_csv(path: Path, text: str) -> Mapping[str, Column] | None:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        rows = [row for row in itertools.islice(reader, _MOST_ROWS) if len(row) == len(header)]
    except csv.Error:
        return None
    if not rows:
        raise _empty(path)
    return {_legible(name): _of_cells([row[i] for row in rows]) for i, name in enumerate(header)}


def _of_cells(cells: Sequence[str]) -> Column:
    """Judge one column of a CSV file. Numbers prove nothing, since text may follow further down."""
    numbers: list[float] = []
    if any(_legible(cell) != cell for cell in cells):
        return Column("undecodable")
    for cell in cells:
        if cell.lower() in _MISSING or cell.lower() in _BOOLEANS:
            continue
        try:
            numbers.append(float(cell))
        except ValueError:
            return Column("text")
    return _with_bounds("unknown", numbers)


def _of_json_lines(path: Path, text: str) -> Mapping[str, Column] | None:
    if not text.lstrip().startswith("{"):
        raise DatasetInvalid(f"{path.name} is not JSON Lines: it needs one object a line", param="task.dataset")
    values: dict[str, list[object]] = {}
    for line in itertools.islice(filter(str.strip, text.split("\n")), _MOST_ROWS):
        try:
            row: object = json.loads(line)
        except (ValueError, RecursionError):
            return None  # either an object over several lines, which is allowed, or damage, which the job will report
        for name, value in cast("dict[str, object]", row).items() if isinstance(row, dict) else ():
            values.setdefault(name, []).append(value)
    return {_legible(name): _of_values(found) for name, found in values.items()}


def _of_values(values: Sequence[object]) -> Column:
    given = [value for value in values if value is not None]
    numbers = [float(value) for value in given if isinstance(value, int | float) and abs(value) < 2**63]
    if given and all(isinstance(value, str) for value in given):
        return Column("text" if all(_legible(value) == value for value in cast("list[str]", given)) else "undecodable")
    if given and all(isinstance(value, list | dict) for value in given):
        inside = [item for value in given if isinstance(value, list) for item in cast("list[object]", value)]
        whole = [float(item) for item in inside if isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63]
        names = frozenset(item for item in inside if isinstance(item, str))
        return replace(_with_bounds("nested", whole), names=names)
    return _with_bounds("number" if given and len(numbers) == len(given) else "unknown", numbers)


def _with_bounds(kind: Kind, numbers: Sequence[float]) -> Column:
    finite = [number for number in numbers if math.isfinite(number)]
    return Column(kind, min(finite), max(finite)) if finite else Column(kind)


def _legible(text: str) -> str:
    """Replace bytes that were not UTF-8 by question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def not_utf8(what: str, param: str) -> DatasetInvalid:
    """Return the error for text in another encoding.

    Args:
        what: Name of the file or the column.
        param: Field of the spec to change.
    """
    return DatasetInvalid(f"{what} is not written in UTF-8; save the file in UTF-8 (iconv -t UTF-8 converts it)", param=param)


def _empty(path: Path) -> DatasetInvalid:
    return DatasetInvalid(f"{path.name} has no row", param="task.dataset")
