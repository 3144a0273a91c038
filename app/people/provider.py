"""The provider: what it says of itself (OpenID Connect Discovery 1.0) and its keys (RFC 7517), fetched when needed and kept.

Nothing is fetched when the service starts. What was fetched once goes on to count while the provider is away; a failure is
remembered for seconds, so that not every request waits for the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import httpx2
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import AfterValidator, BaseModel, ValidationError

from app.logs import first_line
from app.people.config import Config
from app.people.problems import ProviderAway
from app.settings.sign_in import is_safe

_log = structlog.get_logger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
TIMEOUT_S = 5.0
_FRESH_S = 3600.0  # providers replace keys in days, and announce them before
_AGAIN_S = 5.0  # after a failure
_LOOK_FOR_KEY_S = 5.0  # tokens with kids that nobody knows make the provider asked no oftener
_LARGEST = 2**20


def _safe(address: str) -> str:
    if not is_safe(address):
        raise ValueError("must begin with https://")
    return address


Endpoint = Annotated[str, AfterValidator(_safe)]


class Metadata(BaseModel):
    """What a provider says of itself, as far as it is used."""

    issuer: str
    authorization_endpoint: Endpoint
    token_endpoint: Endpoint
    jwks_uri: Endpoint
    userinfo_endpoint: Endpoint | None = None
    end_session_endpoint: Endpoint | None = None
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]  # the default of the standard


T = TypeVar("T")


class _Known(Generic[T]):
    """Something of the provider's, with the time at which it was fetched or could not be."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.fetched_at = float("-inf")
        self.tried_at = float("-inf")
        self.failed = ""


class Provider:
    """Fetches and keeps. Of several threads that need something at once, one fetches it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._metadata = _Known[Metadata]()
        self._keys = _Known[KeySet]()

    def metadata(self) -> Metadata:
        """Return what the provider says of itself. Raises `ProviderAway`."""
        known = self._metadata
        self._renew(known, lambda: _is_due(known), self._fetch_metadata)
        if known.value is None:
            raise self._away()
        return known.value

    def keys(self, kid: str | None = None) -> KeySet:
        """Return the provider's keys, fetched anew where none of them has an id that a token names. Raises `ProviderAway`."""
        address = self.metadata().jwks_uri
        known = self._keys
        self._renew(known, lambda: _is_due(known) or self._misses(kid), lambda: self._fetch_keys(address))
        if known.value is None:
            raise self._away()
        return known.value

    def check(self) -> None:
        """Raise `ProviderAway` where the provider could not be reached when it was last needed, or is not now."""
        self.metadata()
        if self._metadata.failed:
            raise self._away()

    def _renew(self, known: _Known[Any], needed: Callable[[], bool], fetch: Callable[[], None]) -> None:
        """Fetch what is needed, once. Others wait for that only where nothing is known, or the provider answered lately."""
        if not needed() or not self._lock.acquire(blocking=known.value is None or not known.failed):
            return
        try:
            if needed():
                fetch()
        finally:
            self._lock.release()

    def _misses(self, kid: str | None) -> bool:
        known = self._keys
        if kid is None or known.value is None or time.monotonic() - known.tried_at < _LOOK_FOR_KEY_S:
            return False
        return all(key.kid != kid for key in known.value)

    def _fetch_metadata(self) -> None:
        known, issuer = self._metadata, self._config.issuer
        try:
            found = Metadata.model_validate(fetch_json(issuer.rstrip("/") + _WELL_KNOWN))
            if found.issuer != issuer:
                raise ProviderAway(f"it calls itself {found.issuer[:200]}, and COPPICE_OIDC_ISSUER calls it {issuer}")
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            self._note(known, ".".join(map(str, first["loc"])) + f": {first['msg']}")
        except ProviderAway as error:
            self._note(known, str(error))
        else:
            known.value = found
            self._note(known)

    def _fetch_keys(self, address: str) -> None:
        try:
            found = KeySet.import_key_set(fetch_json(address))
        except ProviderAway as error:
            self._note(self._keys, str(error))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            self._note(self._keys, f"its keys cannot be read: {first_line(error)}")
        else:
            self._keys.value = found
            self._note(self._keys)

    def _note(self, known: _Known[Any], failed: str = "") -> None:
        known.tried_at = time.monotonic()
        known.failed = failed
        if failed:
            _log.warning("sign_in.provider_unavailable", issuer=self._config.issuer, reason=failed)
        else:
            known.fetched_at = known.tried_at

    @property
    def reason(self) -> str:
        """Why the provider could not be asked, for its operator; empty where it could."""
        return self._metadata.failed or self._keys.failed

    def _away(self) -> ProviderAway:
        return ProviderAway(f"{self._config.name} cannot be reached for a sign-in now; API keys work, or try again in a moment")


def _is_due(known: _Known[Any]) -> bool:
    moment = time.monotonic()
    return moment - known.fetched_at > _FRESH_S and moment - known.tried_at > _AGAIN_S


def client() -> httpx2.Client:
    """Return a client that follows no redirect and waits for nothing long; the environment says proxy and authorities."""
    return httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False)


def fetch_json(address: str, *, token: str | None = None) -> Any:
    """Fetch a document of the provider's. Raises `ProviderAway` with the reason."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with client() as http, http.stream("GET", address, headers=headers) as response:
            response.raise_for_status()
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _LARGEST:
                    raise ProviderAway(f"{address} answers more than {_LARGEST} bytes")
            return httpx2.Response(200, content=bytes(body)).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise ProviderAway(f"{address}: {type(error).__name__}: {first_line(error)}") from error
