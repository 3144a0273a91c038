"""Texts of a language that a tokenizer does not know: it spells them by bytes or letters, or has no token for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = 20_000
# Tokens a letter above which a text is spelled. Words of alphabets have several letters, and English takes 0.25; signs of
# Chinese or Japanese may have a token each, and take two or three where they are spelled by bytes.
_SPELLED, _SPELLED_SIGNS = 0.6, 1.3
_SIGN_BYTES = 2.5
_UNKNOWN = 0.05


def spelled_out(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str | None:
    """Return a warning if the tokenizer spells a text, or does not know many of its signs; None otherwise."""
    text = " ".join(texts)[:_LETTERS]
    ids = cast(
        "list[int]", cast("Any", tokenizer)(text, truncation=False, add_special_tokens=False, verbose=False)["input_ids"]
    )
    letters = sum(not sign.isspace() for sign in text)
    if not ids or not letters:
        return None
    unknown = cast("int | None", tokenizer.unk_token_id)
    share = 0.0 if unknown is None else ids.count(unknown) / len(ids)
    if share > _UNKNOWN:
        return f"{share:.0%} of its tokens are unknown to the tokenizer, so the figures say little of this language"
    limit = _SPELLED_SIGNS if len(text.encode()) / len(text) >= _SIGN_BYTES else _SPELLED
    each = len(ids) / letters
    if each <= limit:
        return None
    return (
        f"the tokenizer makes {each:.1f} tokens of each letter, so it spells this text by bytes or letters: it was not "
        "made for this language, and the figures say little of it"
    )
