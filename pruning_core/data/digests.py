"""Digests of rows, as they were read: the same for Parquet and CSV files of the same rows. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import cast

from pruning_core.data.rows import Rows


def rows_digest(rows: Rows) -> str:
    """Compute the sha256 of the inputs and labels of rows in their order, and of the names of their classes."""
    digest = hashlib.sha256(_line([rows.form, rows.classes, rows.labels is not None]))
    for at, texts in enumerate(rows.texts):
        digest.update(_line([texts, None if rows.labels is None else _spelt(rows.labels[at])]))
    return digest.hexdigest()


def _spelt(label: object) -> object:
    """Return a label with its numbers as texts: a class is 0 in Parquet, and "0" in CSV."""
    if isinstance(label, list | tuple):
        return [_spelt(part) for part in cast("Sequence[object]", label)]
    if isinstance(label, int | float):
        return str(int(label)) if float(label).is_integer() else repr(label)
    return label


def _line(value: object) -> bytes:
    # ASCII, so that half of a surrogate has a form, too. Labels may be of any type that a parser of labels makes.
    return json.dumps(value, ensure_ascii=True, sort_keys=True, default=repr).encode("ascii") + b"\n"
