"""Columns that the user names to slice the validation rows by: whether they are there, and their values. Torch-free."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from pruning_core.data.faults import shown
from pruning_core.data.labels import is_missing
from pruning_core.data.rows import Value
from pruning_core.data.values import kind_of
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.nearest import did_you_mean

LONGEST_VALUE = 64  # characters: two values that begin with as many alike are one slice
_MOST_SHOWN = 24
_FIELD = "evaluation.slices"


def check_slices(slices: Sequence[str], present: Sequence[str], split: str) -> None:
    """Check that a split has the columns by which it is to be sliced.

    Raises:
        DatasetInvalid: One is missing.
    """
    for column in slices:
        if column not in present:
            raise DatasetInvalid(
                f"the {split} split has no column {column[:LONGEST_VALUE]!r} to slice by; it has "
                f"{shown(sorted(present), _MOST_SHOWN)}{did_you_mean(column, [name[:LONGEST_VALUE] for name in present])}",
                param=_FIELD,
            )


def no_columns() -> DatasetInvalid:
    """Return the error for slices of images that lie in folders."""
    return DatasetInvalid(
        "the images lie in folders by class, and have no columns to slice by; leave slices out, or give a table with images",
        param=_FIELD,
    )


def value_of(value: object) -> Value:
    """Return a cell as rows are sliced by it: short, and never a stranger's whole object."""
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return value.strip()[:LONGEST_VALUE]
    if isinstance(value, dt.date | dt.time | dt.timedelta | Decimal | UUID):
        return str(value)[:LONGEST_VALUE]
    return kind_of(value)[:LONGEST_VALUE]
