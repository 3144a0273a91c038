"""Columns of a Parquet file, judged by its footer. Torch-free.

This serves checks where pyarrow is not installed. What stays open here (`None`, ``unknown``) is decided when the job reads the
file with `pruning_core.data.read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pruning_core.errors import DatasetInvalid
from pruning_core.files.parquet_footer import FooterTooLarge, read_footer

Kind = Literal["text", "number", "nested", "unknown"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as far as it is known. Bounds may come from some of the rows only.

    Attributes:
        kind: Kind of its values.
        smallest: Smallest number in it; None where unknown.
        largest: Largest number, likewise.
    """

    kind: Kind
    smallest: float | None = None
    largest: float | None = None


def read_columns(path: Path) -> Mapping[str, Column] | None:
    """Read the columns of a Parquet file by name, from its footer; None where the footer is too large to look at.

    Raises:
        DatasetInvalid: The file is unreadable, or has no row.
    """
    try:
        footer = read_footer(path)
    except FooterTooLarge:
        return None
    except OSError:
        raise DatasetInvalid(f"{path.name} cannot be read", param="task.dataset") from None
    except ValueError:
        raise DatasetInvalid(
            f"{path.name} is corrupt or truncated: it is not a valid Parquet file", param="task.dataset"
        ) from None
    if footer.rows == 0:
        raise DatasetInvalid(f"{path.name} has no row", param="task.dataset")
    return {
        column.name: Column(
            "nested" if column.is_nested else "text" if column.is_text else "number" if column.is_number else "unknown",
            column.smallest,
            column.largest,
        )
        for column in footer.columns
    }
