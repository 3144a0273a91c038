"""Words that the parts of this package share."""

from __future__ import annotations

from collections.abc import Sequence

# What a key of a GGUF file's head may have for a value.
Value = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]


class NotHeld(Exception):
    """llama.cpp can't hold the model, or read its tokenizer; the message is a sentence that says why."""
