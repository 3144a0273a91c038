"""Strings that must be keys of a table; pydantic validates and describes them like a Literal of the keys. Torch-free.

Unlike a Literal, a table may gain a row after the models that use it were defined, as in a test that adds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


@dataclass(frozen=True, eq=False, slots=True)
class OneOf:
    """Annotation of a str that must be a key of a table: ``Annotated[str, OneOf(TABLE)]``."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Build a validator that reads the table at each validation."""
        del source, handler
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the table's keys as an enum."""
        del schema, handler
        return {"type": "string", "enum": list(self.table)}

    def _check(self, value: object) -> str:
        if isinstance(value, str) and value in self.table:
            return value
        *most, last = map(repr, self.table)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(most)} or {last}" if most else last})
