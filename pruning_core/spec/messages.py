"""Messages for pydantic's errors in a spec, in words that say what would be right. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OBJECT_EXPECTED = frozenset({"model_type", "model_attributes_type", "dict_type"})
_SAID = {
    "extra_forbidden": "is no known field",
    "missing": "is required",
    "tuple_type": 'must be a list, such as ["a"]',
    "list_type": 'must be a list, such as ["a"]',
}


def message_of(error: Mapping[str, Any]) -> str:
    """Return the message for one of pydantic's errors, phrased to follow the name of a field."""
    kind = str(error["type"])
    if kind in _OBJECT_EXPECTED:
        return "must be an object"
    if kind == "string_too_short" and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    return _SAID.get(kind) or str(error["msg"]).removeprefix("Value error, ")
