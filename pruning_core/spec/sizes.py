"""Sizes in bytes, as people write them: ``"100MB"``, ``"0.5 GB"``, ``104857600``. Torch-free."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_MOST = 2**50
_RIGHT = 'a number of bytes, or a size such as "100MB", "0.5GB" or "512MiB"'


def read_size(value: object) -> int:
    """Read a size in bytes; KB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024.

    Raises:
        ValueError: It is none, and what would be one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {_RIGHT}, got a {type(value).__name__}")  # noqa: TRY004 - pydantic's protocol
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip()) if len(value) <= 40 else None
        if found is None:
            raise ValueError(f"must be {_RIGHT}, got {value[:40]!r}")
        unit = _UNITS.get(found[2].upper())
        if unit is None:
            raise ValueError(f"must be {_RIGHT}; its unit is none of KB, MB, GB, KiB, MiB, GiB: {found[2][:20]!r}")
        value = float(found[1]) * unit if "." in found[1] else int(found[1]) * unit
    if not 1 <= value <= _MOST:  # NaN fails this too
        raise ValueError(f"must be at least 1 byte and at most {size_text(_MOST)}, got {value if value < 1 else 'more'}")
    return int(value)


def size_text(size: float) -> str:
    """Return a size for people: ``45.4 MB``."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size:.0f} bytes"


Bytes = Annotated[int, BeforeValidator(read_size, json_schema_input_type=int | str), Field(ge=1, le=_MOST)]
