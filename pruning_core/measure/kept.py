"""Tables of latencies that are kept for later runs, a file each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

_Table = TypeVar("_Table", bound=BaseModel)


def read_kept(path: Path, kind: type[_Table]) -> _Table | None:
    """Read a kept table. Return None if it is missing or damaged: it is then measured again."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_kept(path: Path, table: BaseModel) -> None:
    """Keep a table for the next run. A failure to write is ignored."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(table.model_dump_json(), encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
