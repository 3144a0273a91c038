"""Tokens of the provider's: whose they are, once signature, issuer, audience and times are right (RFC 7519, RFC 8725)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from joserfc import jws, jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)

from app.people.config import Config
from app.people.problems import TokenRefused
from app.people.provider import Provider, fetch_json

# Signatures by a key pair alone: `none` is no signature, and with HS256 the public key would be the secret (RFC 8725, 2.1).
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
_REGISTRY = jws.JWSRegistry(algorithms=list(_ALGORITHMS))
_NO_KEY_S_ID = ""
_LONGEST = 16_384
_LONGEST_NAME = 255
_NAMES = ("name", "preferred_username", "email")


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, as the provider knows them."""

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]


def verify(
    text: str, provider: Provider, config: Config, *, audiences: Iterable[str], nonce: str | None = None
) -> Mapping[str, Any]:
    """Return the claims of a token.

    Args:
        text: The token.
        provider: Whose keys count.
        config: Issuer, and how far clocks may be apart.
        audiences: For whom it may be made.
        nonce: What was sent with the sign-in that it answers; None: it answers none.

    Raises:
        TokenRefused: It does not count, and the message says why.
        ProviderAway: There is no key to look with.
    """
    kid = _kid(text)
    wanted: dict[str, Any] = {
        "iss": {"essential": True, "value": config.issuer},
        "aud": {"essential": True, "values": list(audiences)},
        "exp": {"essential": True},
        "sub": {"essential": True},
    }
    if nonce is not None:
        wanted["nonce"] = {"essential": True, "value": nonce}
    try:
        token = _decoded(text, provider, kid)
        jwt.JWTClaimsRegistry(leeway=config.skew_s, **wanted).validate(token.claims)
    except JoseError as error:
        raise TokenRefused(_why(error)) from None
    except ValueError:
        raise TokenRefused("the token cannot be read") from None
    subject = token.claims["sub"]
    if not subject or len(subject) > _LONGEST_NAME:
        raise TokenRefused("the token names nobody")
    return token.claims


def identity_of(claims: Mapping[str, Any], config: Config) -> Identity:
    """Say who it is by the claims of a token."""
    name = next((claims[key] for key in _NAMES if isinstance(claims.get(key), str) and claims[key]), claims["sub"])
    shown = "".join(letter for letter in str(name) if letter.isprintable())[:_LONGEST_NAME]
    return Identity(config.issuer, str(claims["sub"]), shown or str(claims["sub"]), groups_of(claims, config) or ())


def groups_of(claims: Mapping[str, Any], config: Config) -> tuple[str, ...] | None:
    """Return the groups that claims tell of; None: they tell nothing of groups."""
    found: Any = claims
    for part in config.groups_claim:
        found = cast("dict[str, Any]", found).get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):  # of one group some providers tell without a list
        return (found,)
    return tuple(group for group in cast("list[object]", found) if isinstance(group, str)) if isinstance(found, list) else None


def with_userinfo(claims: Mapping[str, Any], provider: Provider, config: Config, access_token: str | None) -> Mapping[str, Any]:
    """Add what the provider tells only by its userinfo endpoint, where the token tells of no groups."""
    address = provider.metadata().userinfo_endpoint
    if groups_of(claims, config) is not None or address is None or not access_token:
        return claims
    told = fetch_json(address, token=access_token)
    # Another's answer must not be taken for this person's (OpenID Connect Core 1.0, 5.3.2).
    if not isinstance(told, dict) or cast("dict[str, Any]", told).get("sub") != claims["sub"]:
        raise TokenRefused("the provider tells of somebody else than the token")
    return {**cast("dict[str, Any]", told), **claims}


def _decoded(text: str, provider: Provider, kid: str | None) -> jwt.Token:
    try:
        return jwt.decode(text, provider.keys(kid), registry=_REGISTRY, algorithms=list(_ALGORITHMS))
    except BadSignatureError:
        if kid is not None:
            raise
        # The token names no key, and the one that we know may have been replaced.
        return jwt.decode(text, provider.keys(_NO_KEY_S_ID), registry=_REGISTRY, algorithms=list(_ALGORITHMS))


def _kid(text: str) -> str | None:
    if len(text) > _LONGEST:
        raise TokenRefused(f"the token is longer than {_LONGEST} letters")
    try:
        header = jws.extract_compact(text.encode()).headers()
    except (JoseError, ValueError, TypeError):
        raise TokenRefused("the token cannot be read") from None
    if header.get("alg") not in _ALGORITHMS:
        raise TokenRefused("the token is not signed by a key pair (RS256, ES256 and their like)")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def _why(error: JoseError) -> str:
    match error:
        case ExpiredTokenError():
            return "the token has expired; sign in again"
        case MissingClaimError():
            return f"the token lacks the claim {error.claim}"
        case InvalidClaimError():
            return _CLAIMS.get(error.claim, f"the token's claim {error.claim} is not what it must be")
        case BadSignatureError():
            return "the token's signature is wrong"
        case UnsupportedAlgorithmError():
            return "the token is not signed by a key pair (RS256, ES256 and their like)"
        case _:
            return "the token is signed by no key of the provider's"


_CLAIMS = {
    "aud": "the token is for another audience: it was made for another service",
    "iss": "the token is of another issuer than the one that this service asks",
    "nonce": "the token answers another sign-in",
    "nbf": "the token is not valid yet",
    "iat": "the token was made in the future; are the clocks right?",
}
