"""Sign-in of people by an OpenID provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import split_list

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class SignIn(BaseSettings):
    """The provider, this service as its client, and who may do what."""

    oidc_issuer: str = Field(
        default="",
        description="Issuer of the OpenID provider that people sign in with, e.g. https://login.example.org/realms/main; its "
        "/.well-known/openid-configuration says the rest. Needs COPPICE_AUTH. Empty: keys alone. See the guide to sign-in.",
    )
    oidc_client_id: str = Field(default="", description="What the provider knows this service by.")
    oidc_client_secret: SecretStr = Field(
        default=SecretStr(""), description="The secret of this client; empty, without a file too: a public client."
    )
    oidc_client_secret_file: Path | None = Field(default=None, description="File that holds the secret, instead of it.")
    oidc_scopes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("openid", "profile", "email"),
        description="Scopes that are asked of the provider, separated by commas; some tell the groups only if asked by one.",
    )
    oidc_audiences: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Audiences whose tokens the API takes as Bearer, separated by commas; empty: COPPICE_OIDC_CLIENT_ID.",
    )
    oidc_groups_claim: str = Field(
        default="groups", min_length=1, description="Claim that lists a person's groups; dots lead into it: realm_access.roles."
    )
    oidc_roles: str = Field(
        default="",
        description="Which group has which role for which tenant: a list in JSON, or the path of a file that holds it, e.g. "
        '[{"group": "ml", "tenant": "acme", "role": "runner"}]. Roles: reader, runner, admin, operator.',
    )
    oidc_name: str = Field(
        default="", max_length=60, description="The provider's name on the page: Sign in with ...; empty: its host's."
    )
    oidc_session_s: float = Field(
        default=12 * 3600,
        ge=60,
        description="A person's session on the page ends after so long; then the groups are read anew.",
    )
    oidc_clock_skew_s: int = Field(
        default=60,
        ge=0,
        le=600,
        description="So far may the provider's clock be from this one's when a token's times are read.",
    )
    public_url: str = Field(
        default="",
        description="Address that browsers open the pages at, e.g. https://coppice.example.org; the provider sends them back "
        "there. Empty: the one that the browser's request names.",
    )

    _split_scopes = field_validator("oidc_scopes", "oidc_audiences", mode="before")(split_list)

    @field_validator("oidc_issuer", "public_url")
    @classmethod
    def _safe_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError("must be an address such as https://login.example.org, without ? and #")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _nobody_listens(cls, value: str) -> str:
        if value and not is_safe(value):
            raise ValueError("must begin with https://: whoever changes what the provider says could sign in as anybody")
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _openid_is_asked(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("must have openid among them: without it the provider tells nothing of who signed in")
        return value

    @property
    def signs_people_in(self) -> bool:
        """Whether people sign in by a provider."""
        return bool(self.oidc_issuer)


def is_safe(address: str) -> bool:
    """Return whether nobody on the way can change what is read from an address: HTTPS, or this host's own."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
