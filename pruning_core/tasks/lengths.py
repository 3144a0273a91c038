"""Parts of texts that will be cut to a number of tokens: a tokenizer reads all that it is given."""

from __future__ import annotations

# Characters a token that are tokenised: tokens have about five.
_WIDEST = 64


def part_of(text: str, limit: int, start: int = 0) -> str:
    """Return what follows a character of a text, as far as a number of tokens may reach, in whole words."""
    end = start + limit * _WIDEST
    if end >= len(text):
        return text[start:]
    found = text.rfind(" ", start, end)
    return text[start : found if found > start else end]
