"""`Frozen`, the base of every value that crosses a boundary. Torch-free."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of the values that cross a boundary: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def but(self, **changes: Any) -> Self:
        """Return a copy with some fields changed. The copy is validated; an unknown field is an error."""
        return type(self)(**{**dict(self), **changes})
