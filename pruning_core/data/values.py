"""Kinds of values: what a column holds, in words. Torch-free."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pruning_core.data.chats import is_chat
from pruning_core.data.labels import is_number
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
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true and false"
    if is_number(value):
        return "numbers"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return "dates or times"
    if isinstance(value, bytes):
        return "bytes"
    if is_chat(value):
        return "chats"
    if isinstance(value, list):
        items = cast("list[object]", value)
        return f"lists of {kind_of(items[0])}" if items and not isinstance(items[0], list) else "lists"
    return "objects" if isinstance(value, Mapping) else f"values of type {type(value).__name__}"
