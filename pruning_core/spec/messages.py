"""Messages for pydantic's errors in a spec, in words that say what would be right. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from pruning_core.spec.nearest import did_you_mean, no_known_field

_Error = TypeVar("_Error", bound=Mapping[str, Any])

_SAID = {
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "extra_forbidden": "is no known field",
    "missing": "is required",
    "tuple_type": 'must be a list, such as ["a"]',
    "list_type": 'must be a list, such as ["a"]',
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
_SHOULD = re.compile(r"(?:Input|String|List|Tuple|Set|Dictionary|Value) should ")
_QUOTED = re.compile(r"'([^']*)'")
_OF_SIGNS = re.compile(r"\^(\[A-Za-z0-9\])?\[A-Za-z0-9([^\]]*)\][*+]\$")
_NO_NUL = r"^[^\x00]*$"


def without_consequences(errors: Iterable[_Error]) -> list[_Error]:
    """Return errors without those that others entail: a list is not too short where an item of it was left out as wrong."""
    found = list(errors)
    return [
        own for own in found if own["type"] != "too_short" or not any(_lies_in(other["loc"], own["loc"]) for other in found)
    ]


def _lies_in(location: Sequence[str | int], outer: Sequence[str | int]) -> bool:
    return len(location) > len(outer) and tuple(location[: len(outer)]) == tuple(outer)


def message_of(error: Mapping[str, Any], model: type[BaseModel] | None = None, location: Sequence[str | int] = ()) -> str:
    """Return the message for one of pydantic's errors, phrased to follow the name of a field.

    Args:
        error: The error.
        model: The model that was validated, if it is known: then the message names the known field that is nearest.
        location: Where the error is in the model.
    """
    kind, context = str(error["type"]), error.get("ctx", {})
    match kind:
        case "extra_forbidden" if model is not None and location:
            return no_known_field(model, location)
        case "string_too_short" if context["min_length"] == 1:
            return "must not be empty"
        case "string_pattern_mismatch":
            return _of_a_pattern(str(context["pattern"]))
        case "literal_error" | "enum":
            expected = str(context["expected"])
            return f"must be {expected}{did_you_mean(error.get('input'), _QUOTED.findall(expected))}"
        case "union_tag_invalid" | "union_tag_not_found":
            return _of_a_tag(context)
        case _:
            return _SAID.get(kind) or _SHOULD.sub("must ", str(error["msg"]).removeprefix("Value error, "), count=1)


def _of_a_tag(context: Mapping[str, Any]) -> str:
    field, tags = str(context["discriminator"]).strip("'"), _QUOTED.findall(str(context.get("expected_tags", "")))
    if not tags:
        return f"must have a field {field}, which says what the others mean"
    return f"must have as {field} one of {', '.join(tags)}{did_you_mean(context['tag'], tags)}"


def _of_a_pattern(pattern: str) -> str:
    """Return in words what a pattern asks for: a regular expression is no sentence."""
    if pattern == _NO_NUL:
        return "must hold no NUL character"
    found = _OF_SIGNS.fullmatch(pattern)
    if found is None:
        return f"must match the pattern {pattern}"
    signs = " ".join(found[2].replace("\\", ""))
    first = ", and must begin with a letter or a digit" if found[1] else ""
    return f"may hold only letters, digits and {signs}{first}"
