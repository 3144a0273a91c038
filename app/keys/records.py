"""Keys and callers as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """A permission of a key."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    TENANT_ADMIN = "tenant:admin"  # keys and audit log of the own tenant
    JOBS_PRIORITY = "jobs:priority"  # a job's priority counts before other tenants' jobs, not only among the tenant's own
    ADMIN = "admin"  # everything, of all tenants


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
class Person:
    """The person behind a caller, and the tenants among which they may choose."""

    issuer: str
    subject: str
    name: str
    tenants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: a tenant, by one of its keys or by a person.

    While authentication is off there is one caller, without a name, who may do everything.

    Attributes:
        owner: The tenant.
        key_id: Id of the key, or of the person.
        scopes: What may be done.
        person: Who it is, where it is a person.
    """

    owner: str = ""
    key_id: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    person: Person | None = None
