"""Roles of people, and the scopes of keys that each stands for."""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum

from app.keys.records import Scope


class Role(StrEnum):
    """What a person may do for a tenant. Each may do what those before it may."""

    READER = "reader"
    RUNNER = "runner"
    ADMIN = "admin"  # of the tenant: its keys and its audit log
    OPERATOR = "operator"  # of the service: all tenants


SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.READER: frozenset({Scope.JOBS_READ}),
    Role.RUNNER: frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE}),
    Role.ADMIN: frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.TENANT_ADMIN}),
    Role.OPERATOR: frozenset(Scope),
}
_HIGHEST_FIRST = tuple(reversed(Role))


def higher(one: Role, other: Role) -> Role:
    """Return the role that may do more."""
    return min(one, other, key=_HIGHEST_FIRST.index)


def role_of(scopes: Set[Scope]) -> Role | None:
    """Return the highest role whose scopes are all there; None: not even the lowest. The scope ``admin`` alone is enough."""
    if Scope.ADMIN in scopes:
        return Role.OPERATOR
    return next((role for role in _HIGHEST_FIRST if SCOPES[role] <= scopes), None)
