"""Forms as browsers send them, and fields made from JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal, assert_never, cast
from urllib.parse import parse_qsl

from fastapi import Request

from app.errors import Problem
from app.web.formats import words

_MOST_FIELDS = 300
_KIND = "application/x-www-form-urlencoded"

Control = Literal["select", "number", "checkbox", "checks", "text"]


@dataclass(frozen=True, slots=True)
class Form:
    """A filled-in form: every value of every name."""

    values: Mapping[str, Sequence[str]]

    def one(self, name: str, default: str = "") -> str:
        """Return the last value of a name."""
        return (self.values.get(name) or [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return all values of a name."""
        return list(self.values.get(name, []))


async def read_form(request: Request) -> Form:
    """Read the body of a form.

    Raises:
        Problem: It is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send the form of this page")
    try:
        text = (await request.body()).decode("utf-8")
        sent = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "malformed_request", "the form could not be read; send it from this page"
        ) from None
    values: dict[str, list[str]] = {}
    for name, value in sent:
        values.setdefault(name, []).append(value)
    return Form(values)


@dataclass(frozen=True, slots=True)
class Field:
    """One control: where its value goes in the body, and what a schema says of it."""

    name: str
    path: tuple[str, ...]
    label: str
    hint: str
    control: Control
    default: object
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    whole: bool = False
    nullable: bool = False

    def read(self, form: Form) -> tuple[object, ...]:
        """Return the value in the body's own type, as a tuple of one. Return an empty tuple where the default is meant."""
        given = self._given(form)
        if given in ("", None):
            cleared = self.nullable and self.default is not None and self.name in form.values
            return (None,) if cleared else ()
        return () if given == self.default else (given,)

    def shown(self, value: object) -> list[str]:
        """Return what the control sends where it shows a value."""
        match self.control:
            case "checks":
                return [str(item) for item in cast("list[object]", value or [])]
            case "checkbox":
                return ["on"] if value else []
            case "select" | "number" | "text":
                return ["" if value is None else str(value)]
            case _:
                assert_never(self.control)

    def _given(self, form: Form) -> object:
        match self.control:
            case "checks":
                return form.all(self.name)
            case "checkbox":
                return bool(form.one(self.name))
            case "number":
                return _json_number(form.one(self.name).strip())
            case "select" | "text":
                return form.one(self.name).strip()
            case _:
                assert_never(self.control)


def fields_of(schema: Mapping[str, Any], prefix: str, path: tuple[str, ...]) -> Iterator[Field]:
    """Make the controls of an object's properties, and of the objects among them; what no control can show is left to specs.

    Args:
        schema: JSON schema of the object.
        prefix: What the names of the controls begin with.
        path: Where the object is in the body.
    """
    for name, declared in cast("dict[str, dict[str, Any]]", schema.get("properties", {})).items():
        found = _without_null(declared)
        inner = schema.get("$defs", {}).get(str(found.get("$ref", "")).rpartition("/")[2])
        if inner is not None and "properties" in inner:
            nested = fields_of({**inner, "$defs": schema["$defs"]}, f"{prefix}.{name}", (*path, name))
            yield from (replace(own, label=f"{words(name)}: {own.label.lower()}") for own in nested)
            continue
        control = _control(found)
        if control is None:
            continue
        items = found.get("items", {}) if control == "checks" else found
        yield Field(
            name=f"{prefix}.{name}",
            path=(*path, name),
            label=words(name),
            hint=str(declared.get("description", ""))
            .replace("`", "")
            .replace("null:", "empty:")
            .replace("when null", "when empty"),
            control=control,
            default=declared.get("default"),
            choices=tuple(str(choice) for choice in items.get("enum", ())),
            minimum=found.get("minimum", found.get("exclusiveMinimum")),
            maximum=found.get("maximum", found.get("exclusiveMaximum")),
            whole=found.get("type") == "integer",
            nullable=found is not declared,
        )


def put(body: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set a value deep in a body that is being made."""
    *parents, last = path
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = value


def _without_null(declared: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in declared.get("anyOf", ()) if choice.get("type") != "null"]
    # Names that stand for an object with that kind: the object's own controls have the kind.
    objects = [choice for choice in choices if "$ref" in choice]
    if len(choices) == 2 and len(objects) == 1 and any("enum" in choice for choice in choices):
        return objects[0]
    return choices[0] if len(choices) == 1 else declared


def _control(schema: Mapping[str, Any]) -> Control | None:
    if "const" in schema:
        return None
    if "enum" in schema:
        return "select"
    if schema.get("type") == "array":
        return "checks" if "enum" in schema.get("items", {}) else None
    return cast(
        "dict[object, Control]", {"boolean": "checkbox", "integer": "number", "number": "number", "string": "text"}
    ).get(schema.get("type"))


def _json_number(text: str) -> object:
    """Read a number. Other text stays as it is, and the spec says what would be right."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def pairs(text: str) -> object:
    """Read ``key=value`` lines; what is none stays as it is, and the schema says so."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not all("=" in line for line in lines):
        return text
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def listed(text: str) -> list[str]:
    """Read words that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def number(text: str) -> object:
    """Read a number as the body has it; what is none stays as it is, and the spec says what would be right."""
    if text.endswith("%") and isinstance(share := _plain_number(text[:-1].strip()), int | float):
        return round(share / 100, 12)
    return _plain_number(text)


def _plain_number(text: str) -> int | float | str:
    try:
        return float(text) if "." in text or "e" in text.lower() else int(text)
    except ValueError:
        return text
