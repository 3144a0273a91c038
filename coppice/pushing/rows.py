"""Rows of the user's data in a bundle's reports: who pushes a bundle to where others read it must know of them."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from coppice.pushing.bundle import Bundle

_LARGEST_REPORT = 64_000_000  # bytes: far more than any report has


def rows_of_data(bundle: Bundle) -> int:
    """Count the rows that the reports of a bundle quote (``where.examples``): those of all its checkpoints together."""
    reports = [file for file in bundle.files if PurePosixPath(file.path).name == "report.json" and file.size <= _LARGEST_REPORT]
    return sum(_quoted(file.source.read_bytes()) for file in reports)


def _quoted(text: bytes) -> int:
    try:
        report: Any = json.loads(text)
    except ValueError:  # no report of ours, so it quotes nothing that we know of
        return 0
    where = report.get("where") if isinstance(report, dict) else None
    examples = where.get("examples") if isinstance(where, dict) else None
    return len(examples) if isinstance(examples, list) else 0
