"""What the settings say of the provider, read and checked once, by the API alone: workers sign nobody in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.keys.roles import Role, higher
from app.keys.schemas import Tenant
from app.settings import Settings, SettingsInvalid


class Grant(BaseModel):
    """The members of a group have a role for a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str = Field(min_length=1, max_length=500)
    tenant: Tenant
    role: Role


_GRANTS = TypeAdapter(tuple[Grant, ...])


@dataclass(frozen=True, slots=True)
class Config:
    """The provider, and this service as its client."""

    issuer: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    groups_claim: tuple[str, ...]
    grants: tuple[Grant, ...]
    name: str
    session_s: float
    skew_s: int

    def roles(self, groups: Iterable[str]) -> Mapping[str, Role]:
        """Return the role that somebody with these groups has for each tenant, in the order of the setting."""
        mine, found = frozenset(groups), dict[str, Role]()
        for grant in self.grants:
            if grant.group in mine:
                found[grant.tenant] = higher(found.get(grant.tenant, grant.role), grant.role)
        return found

    def known(self, groups: Iterable[str]) -> tuple[str, ...]:
        """Return those of the groups that have a role."""
        granted = {grant.group for grant in self.grants}
        return tuple(sorted({group for group in groups if group in granted}))


def read_config(settings: Settings) -> Config | None:
    """Read what the settings say; None: people do not sign in by a provider.

    Raises:
        SettingsInvalid: A file cannot be read, the roles are not such, or the library is missing.
    """
    if not settings.signs_people_in:
        return None
    if find_spec("authlib") is None or find_spec("joserfc") is None:
        raise SettingsInvalid("COPPICE_OIDC_ISSUER: sign-in needs a library: pip install 'coppice-server[oidc]'")
    secret = settings.oidc_client_secret.get_secret_value()
    if settings.oidc_client_secret_file is not None:
        secret = _text_of(settings.oidc_client_secret_file, "COPPICE_OIDC_CLIENT_SECRET_FILE").strip()
    return Config(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=secret,
        scopes=settings.oidc_scopes,
        audiences=settings.oidc_audiences or (settings.oidc_client_id,),
        groups_claim=tuple(settings.oidc_groups_claim.split(".")),
        grants=_grants(settings.oidc_roles),
        name=settings.oidc_name or urlsplit(settings.oidc_issuer).hostname or settings.oidc_issuer,
        session_s=settings.oidc_session_s,
        skew_s=settings.oidc_clock_skew_s,
    )


def _grants(given: str) -> tuple[Grant, ...]:
    variable = "COPPICE_OIDC_ROLES"
    text = given if given.lstrip().startswith(("[", "{")) else _text_of(Path(given), variable)
    try:
        found = _GRANTS.validate_python(json.loads(text), strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsInvalid(f"{variable}: {where}: {first['msg']}; {_EXAMPLE}") from None
    except ValueError:
        raise SettingsInvalid(f"{variable} is no JSON; {_EXAMPLE}") from None
    if not found:
        raise SettingsInvalid(f"{variable} names no group, so that nobody could sign in; {_EXAMPLE}")
    return found


_EXAMPLE = 'one line of the list is {"group": "ml", "tenant": "acme", "role": "runner"}'


def _text_of(path: Path, variable: str) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsInvalid(f"{variable}: the file {path} cannot be read ({reason})") from None
