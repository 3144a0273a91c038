"""Chats as texts: by the chat template of the model's tokenizer, as whoever serves the model renders them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from pruning_core.data.chats import NO_TEMPLATE, decode_chat
from pruning_core.errors import DatasetInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows


def rendered(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Rows:
    """Render chats by the tokenizer's template. Chats that the template refuses are left out, and said.

    Raises:
        DatasetInvalid: The tokenizer has no template, or refuses every chat.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise DatasetInvalid(NO_TEMPLATE, param="task.columns.text")
    texts: list[tuple[str, ...]] = []
    refused, why = 0, ""
    for (chat,) in rows.texts:
        try:
            texts.append((cast("str", tokenizer.apply_chat_template(decode_chat(chat), tokenize=False)),))
        except (TemplateError, TypeError, ValueError) as error:  # a template raises the first; the others are its own faults
            refused, why = refused + 1, why or (str(error).splitlines() or [type(error).__name__])[0][:200]
    if not texts:
        raise DatasetInvalid(f"the tokenizer's chat template refuses all chats: {why}", param="task.columns.text")
    note = f"{refused} of {len(rows)} chats were left out: the tokenizer's chat template refuses them ({why})"
    notes = (*rows.notes, note) if refused else rows.notes
    return replace(rows, texts=tuple(texts), form="rendered", notes=notes)


def prompt_of(tokenizer: PreTrainedTokenizerBase, question: str) -> str | None:
    """Render a question up to where the model's answer begins; None without a template, or where it refuses the question."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return None
    chat = [{"role": "user", "content": question}]
    try:
        return cast("str", tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except (TemplateError, TypeError, ValueError):
        return None
