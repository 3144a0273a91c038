"""Byte ranges (RFC 9110, section 14): one range a request; several are answered with the whole file, which is allowed."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The range lies outside the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Translate a ``Range`` header into ``[start, stop)``.

    Returns:
        None where the whole file is to be sent: no header, another unit, several ranges, or a malformed one.

    Raises:
        Unsatisfiable: A well-formed range that has no byte of the file.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        if int(last) == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - int(last)), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(size, int(last) + 1 if last else size)
