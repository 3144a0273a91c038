"""Names out of a table, checked and described by pydantic as a Literal of them would be. Torch-free.

A table may gain a row after the models that name its keys were defined, as in a test that adds one; a Literal could not.
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
        """Check values against the table as it stands when they are checked."""
        del source, handler
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """List the table's keys."""
        del schema, handler
        return {"type": "string", "enum": list(self.table)}

    def _check(self, value: object) -> str:
        if isinstance(value, str) and value in self.table:
            return value
        *most, last = map(repr, self.table)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(most)} or {last}" if most else last})
