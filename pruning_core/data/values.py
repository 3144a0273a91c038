"""Kinds of values: what a column holds, in words. Torch-free."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from pruning_core.data.chats import is_chat
from pruning_core.spec.tasks import Reads


@dataclass(frozen=True, slots=True)
class Need:
    """What inputs must be, for a sentence."""

    words: str
    verb: str


NEEDS: Mapping[Reads, Need] = {
    "text": Need("text", "is"),
    "words": Need("lists of words", "are"),
    "image": Need("images", "are"),
}


def kind_of(value: object) -> str:
    """Name the kind of a value, for a message."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        plain = bool(items) and not isinstance(items[0], list)
        return "chats" if is_chat(value) else f"lists of {kind_of(items[0])}" if plain else "lists"
    named = (name for kinds, name in _KINDS if isinstance(value, kinds))
    return next(named, f"values of type {type(value).__name__}")


# A yes or no is a number to Python, so it comes first.
_KINDS: Sequence[tuple[type | tuple[type, ...], str]] = (
    (str, "text"),
    (bool, "true and false"),
    ((int, float, Decimal), "numbers"),
    ((dt.date, dt.time, dt.timedelta), "dates or times"),
    (bytes, "bytes"),
    (Mapping, "objects"),
)
