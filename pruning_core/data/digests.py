"""Digests of rows, as they were read: the same for Parquet and CSV files of the same rows. Torch-free."""

from __future__ import annotations

import hashlib
import json

from pruning_core.data.rows import Rows


def rows_digest(rows: Rows) -> str:
    """Compute the sha256 of the inputs and labels of rows in their order, and of the names of their classes."""
    digest = hashlib.sha256(_line([rows.form, rows.classes, rows.labels is not None]))
    for at, texts in enumerate(rows.texts):
        digest.update(_line([texts, None if rows.labels is None else rows.labels[at]]))
    return digest.hexdigest()


def _line(value: object) -> bytes:
    # ASCII, so that half of a surrogate has a form, too. Labels may be of any type that a parser of labels makes.
    return json.dumps(value, ensure_ascii=True, sort_keys=True, default=repr).encode("ascii") + b"\n"
