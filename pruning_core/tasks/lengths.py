"""Where texts end: parts of those that will be cut, as a tokenizer reads all that it is given, and the token that ends one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Characters a token that are tokenised: tokens have about five.
_WIDEST = 64


def part_of(text: str, limit: int, start: int = 0) -> str:
    """Return what follows a character of a text, as far as a number of tokens may reach, in whole words."""
    end = start + limit * _WIDEST
    if end >= len(text):
        return text[start:]
    found = text.rfind(" ", start, end)
    return text[start : found if found > start else end]


def parts_of(columns: Sequence[Sequence[Any]], limit: int) -> Sequence[Sequence[Any]]:
    """Return the texts of pairs as far as a number of tokens may reach; single texts and lists of words as they are.

    Of two long texts, tokenizers makes every pair of their parts before it drops all but the first.
    """
    if len(columns) < 2:
        return columns
    return [[part_of(own, limit) if isinstance(own, str) else own for own in column] for column in columns]


def first_of(ends: int | list[int] | None) -> int | None:
    """Return the token that ends a text: the first, where a configuration names several."""
    return next(iter(ends), None) if isinstance(ends, list) else ends
