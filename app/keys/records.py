"""Keys and callers as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """A permission of a key."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    JOBS_PRIORITY = "jobs:priority"  # a job's priority counts before other tenants' jobs, not only among the tenant's own
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without what would let anybody use it."""

    id: str
    owner: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class SecretUse:
    """What stands under the server's secret, of what is valid."""

    keys: int
    keys_under_it: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: a tenant, by one of its keys.

    While authentication is off there is one caller, without a name, who may do everything.
    """

    owner: str = ""
    key_id: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
