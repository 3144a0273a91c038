"""Chats: lists of messages, in the two forms that data sets have. Torch-free; the tokenizer's template makes texts of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from pruning_core.errors import DatasetInvalid

# Who speaks, in the form that ShareGPT's data sets have ("from", "value").
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "bing": "assistant"}


NO_TEMPLATE = (
    "the data holds chats, and the model's tokenizer has no chat template that makes texts of them; put chat_template.jinja "
    "beside the weights, or give texts"
)


def is_chat(value: object) -> bool:
    """Return whether a value is a list of messages, whatever these hold."""
    if not isinstance(value, list) or not value:
        return False
    messages = cast("list[object]", value)
    return all(
        isinstance(own, Mapping) and ({"role", "content"} <= own.keys() or {"from", "value"} <= own.keys()) for own in messages
    )


def encode_chat(value: list[object], column: str) -> str | None:
    """Write a chat as JSON: a list of messages, each with a role and a content.

    Returns:
        The text; None where a message has no text, such as one that only calls a tool.

    Raises:
        DatasetInvalid: A message's content is a list of parts, as chats with images have them.
    """
    messages: list[dict[str, str]] = []
    for own in cast("list[Mapping[str, object]]", value):
        role = own.get("role", own.get("from"))
        content = own.get("content", own.get("value"))
        if isinstance(content, list):
            raise DatasetInvalid(
                f"column {column[:64]!r} holds chats whose contents are lists of parts, as chats with images have them; give "
                "the content of each message as a text",
                param="task.columns.text",
            )
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        messages.append({"role": _SPEAKERS.get(role, role), "content": content})
    return json.dumps(messages, ensure_ascii=False)


def decode_chat(text: str) -> list[dict[str, str]]:
    """Read what `encode_chat` wrote."""
    return json.loads(text)
