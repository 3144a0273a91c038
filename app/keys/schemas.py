"""API keys as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.keys.records import ApiKey, Scope

TENANT = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
Tenant = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=TENANT)]
KeyName = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]

DEFAULT_SCOPES = (Scope.JOBS_READ, Scope.JOBS_WRITE)
LONGEST_LIFE_DAYS = 3650


class KeyCreate(BaseModel):
    """A request for a new key."""

    model_config = ConfigDict(extra="forbid")

    tenant: Tenant
    name: KeyName = ""
    scopes: list[Scope] = Field(default=list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope))
    expires_days: int | None = Field(default=None, ge=1, le=LONGEST_LIFE_DAYS, description="Null: it does not expire.")


class KeyView(BaseModel):
    """One key, without its text."""

    id: str
    object: Literal["api_key"] = "api_key"
    tenant: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> KeyView:
        """Show a key."""
        return cls.model_validate(_fields(key))


class KeyCreated(KeyView):
    """A new key, with its text: the only time that it is shown."""

    key: str

    @classmethod
    def with_text(cls, key: ApiKey, text: str) -> KeyCreated:
        """Show a new key."""
        return cls.model_validate({**_fields(key), "key": text})


class KeyList(BaseModel):
    """Keys, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyView]


def _fields(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.owner,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
