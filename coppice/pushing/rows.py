"""The user's data in a bundle's reports: who pushes a bundle to where others read it must know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from coppice.pushing.bundle import Bundle

_LARGEST_REPORT = 64_000_000  # bytes: far more than any report has


@dataclass(frozen=True, slots=True)
class QuotedData:
    """What the reports of a bundle quote of the data, those of all its checkpoints together.

    Attributes:
        rows: Number of quoted rows (``where.examples``).
        values: Number of values of columns that slices are named by (``where.slices``): a column of customers has their names.
        columns: Those columns.
    """

    rows: int
    values: int
    columns: tuple[str, ...]

    def __str__(self) -> str:
        """Say it, as the end of a sentence; empty where nothing is quoted."""
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'} of your evaluation data" if self.rows else ""
        values = f"{self.values} value{'' if self.values == 1 else 's'} of its columns ({', '.join(self.columns)})"
        return " and ".join(filter(None, (rows, values if self.values else "")))


def data_quoted(bundle: Bundle) -> QuotedData:
    """Count what the reports of a bundle quote of the user's data."""
    reports = [file for file in bundle.files if PurePosixPath(file.path).name == "report.json" and file.size <= _LARGEST_REPORT]
    found = [_where(file.source.read_bytes()) for file in reports]
    columns = [str(own["column"]) for where in found for own in _listed(where, "slices") if own.get("column") is not None]
    rows = sum(len(_listed(where, "examples")) for where in found)
    return QuotedData(rows, len(columns), tuple(dict.fromkeys(columns)))


def _where(text: bytes) -> dict[str, Any]:
    try:
        report: Any = json.loads(text)
    except ValueError:  # no report of ours, so it quotes nothing that we know of
        return {}
    where = cast("dict[str, Any]", report).get("where") if isinstance(report, dict) else None
    return cast("dict[str, Any]", where) if isinstance(where, dict) else {}


def _listed(where: dict[str, Any], name: str) -> list[dict[str, Any]]:
    listed = where.get(name)
    entries = cast("list[Any]", listed) if isinstance(listed, list) else []
    return [cast("dict[str, Any]", own) for own in entries if isinstance(own, dict)]
