"""JSON of strangers: bounded in bytes, depth, digits and range, and without a key twice. Torch-free.

Python's reader takes integers of thousands of digits, floats that overflow to infinity, and the last one of several values of
a key. Each of these is read in one way here and in another one elsewhere, or costs time out of proportion.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn, cast

# No count, size or offset has as many digits. Tokenizers state 1e30 in full, which has 31, for texts without a longest one.
_MOST_DIGITS = 64
# The readers of safetensors and tokenizers stop at 127; transformers copies a configuration by functions that call themselves.
_DEEPEST = 64


class JsonRefused(ValueError):
    """The text is no JSON that is read here. The message ends a sentence that begins with the name of the file."""


def read_json(path: Path, *, most_bytes: int) -> object:
    """Read a file of JSON.

    Args:
        path: The file.
        most_bytes: Size up to which it is read.

    Raises:
        JsonRefused: It is too large, or as `parse_json`.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise JsonRefused(f"has more than {most_bytes} bytes, which no such file needs")
    return parse_json(data)


def parse_json(data: bytes, *, constants: bool = True) -> object:
    """Parse JSON in UTF-8.

    Args:
        data: The text.
        constants: Whether ``NaN`` and ``Infinity`` are taken, which are no JSON, but occur in configurations.

    Raises:
        JsonRefused: It is no JSON, is nested too deeply, holds a number out of range, or has a key twice.
    """
    try:
        found: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=float if constants else _no_constant,
        )
    except JsonRefused:
        raise
    except RecursionError:
        raise JsonRefused("is nested too deeply") from None
    except ValueError:
        raise JsonRefused("is not readable JSON") from None
    _require_flat(found)
    return found


def _require_flat(found: object) -> None:
    """Refuse what is nested more than `_DEEPEST` deep, level by level, without a call for each level."""
    level = [found]
    for _ in range(_DEEPEST + 1):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += [value for value in cast("dict[str, object]", one).values() if isinstance(value, dict | list)]
            elif isinstance(one, list):
                inner += [value for value in cast("list[object]", one) if isinstance(value, dict | list)]
        level = inner
        if not level:
            return
    raise JsonRefused(f"is nested too deeply: more than {_DEEPEST} lists and objects in one another")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonRefused("has a key twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise JsonRefused(f"holds a number of more than {_MOST_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise JsonRefused("holds a number that is out of range")
    return found


def _no_constant(name: str) -> NoReturn:
    raise JsonRefused(f"holds {name}, which is no number")
