"""The authorisation-code flow of OpenID Connect, with PKCE (RFC 7636), state and nonce; and the sign-out at the provider."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client

from app.logs import first_line
from app.people.config import Config
from app.people.problems import ProviderAway, SignInDenied, TokenRefused
from app.people.provider import TIMEOUT_S, Metadata, Provider
from app.people.tokens import Identity, identity_of, verify, with_userinfo

_RANDOM_BYTES = 32  # of state and nonce
_VERIFIER_BYTES = 48  # 64 letters; RFC 7636 wants 43 to 128


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in under way: what the provider must give back, and what must be shown it with the code."""

    state: str
    nonce: str
    verifier: str


def begin(provider: Provider, config: Config, redirect_uri: str) -> tuple[str, Attempt]:
    """Return the address to send the browser to, and what to remember until it comes back. Raises `ProviderAway`."""
    attempt = Attempt(*(secrets.token_urlsafe(size) for size in (_RANDOM_BYTES, _RANDOM_BYTES, _VERIFIER_BYTES)))
    metadata = provider.metadata()
    with _client(config, metadata) as client:
        address, _state = client.create_authorization_url(
            metadata.authorization_endpoint,
            state=attempt.state,
            nonce=attempt.nonce,
            code_verifier=attempt.verifier,
            redirect_uri=redirect_uri,
        )
    return cast("str", address), attempt


def finish(provider: Provider, config: Config, redirect_uri: str, *, code: str, nonce: str, verifier: str) -> Identity:
    """Change the code for tokens, and return whose they are.

    Raises:
        ProviderAway: The provider does not answer.
        SignInDenied: It does not take the code, or this client.
        TokenRefused: Its token is not right.
    """
    metadata = provider.metadata()
    try:
        with _client(config, metadata) as client:
            found: Mapping[str, Any] = client.fetch_token(
                metadata.token_endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                redirect_uri=redirect_uri,
            )
    except AuthlibBaseError as error:
        raise SignInDenied(f"{config.name} does not take this sign-in: {first_line(error)}") from error
    except (httpx2.HTTPError, ValueError) as error:
        raise ProviderAway(f"{config.name} did not answer; try again in a moment") from error
    text = found.get("id_token")
    if not isinstance(text, str):
        raise TokenRefused("the provider gave no ID token; is openid among COPPICE_OIDC_SCOPES?")
    # An ID token is for the client alone, whatever audiences the API takes.
    claims = verify(text, provider, config, audiences=(config.client_id,), nonce=nonce)
    return identity_of(with_userinfo(claims, provider, config, found.get("access_token")), config)


def sign_out_address(metadata: Metadata, config: Config, return_to: str) -> str | None:
    """Return where the browser ends its session at the provider (RP-Initiated Logout 1.0); None: nowhere."""
    if metadata.end_session_endpoint is None:
        return None
    query = urlencode({"client_id": config.client_id, "post_logout_redirect_uri": return_to})
    return metadata.end_session_endpoint + ("&" if "?" in metadata.end_session_endpoint else "?") + query


def _client(config: Config, metadata: Metadata) -> Any:  # an httpx2.Client; its types do not say so
    known = metadata.token_endpoint_auth_methods_supported
    by_post = "client_secret_basic" not in known and "client_secret_post" in known
    method = ("client_secret_post" if by_post else "client_secret_basic") if config.client_secret else "none"
    return OAuth2Client(
        client_id=config.client_id,
        client_secret=config.client_secret or None,
        token_endpoint_auth_method=method,
        scope=" ".join(config.scopes),
        code_challenge_method="S256",
        timeout=TIMEOUT_S,
        follow_redirects=False,
    )
