"""What tests of the sign-in do with a provider: run it, tell it of people, and go through its flow as another client would."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2

from tests.servers import Server, free_port

CLIENT = "coppice"
ROLES = [
    {"group": "everybody", "tenant": "acme", "role": "reader"},
    {"group": "ml", "tenant": "acme", "role": "runner"},
    {"group": "leads", "tenant": "acme", "role": "admin"},
    {"group": "ops", "tenant": "ops", "role": "operator"},
    {"group": "guests", "tenant": "rival", "role": "reader"},
]


@dataclass(frozen=True)
class RunningProvider:
    """A provider on loopback."""

    url: str
    server: Server

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return settings of a service whose people sign in here, as fields."""
        given = {"auth": True, "secret": "s" * 40, "oidc_issuer": self.url, "oidc_client_id": CLIENT}
        return (
            given | {"oidc_client_secret": "not so secret", "oidc_roles": json.dumps(ROLES), "oidc_name": "Example"} | changes
        )

    def environment(self, **changes: Any) -> dict[str, str]:
        """Return the same as variables."""
        return {f"COPPICE_{name.upper()}": str(value) for name, value in self.settings(**changes).items()}

    def know(self, subject: str, *groups: str, **claims: Any) -> None:
        """Tell the provider of a person."""
        told = {"name": subject.partition("@")[0].title(), "email": subject, "groups": list(groups)} | claims
        httpx2.put(f"{self.url}/users/{quote(subject)}", json=told).raise_for_status()

    def agree(self, address: str, subject: str, **form: str) -> str:
        """Sign in at the provider's form, as a person; gives the address that it sends the browser to."""
        assert httpx2.get(address).status_code == 200
        answer = httpx2.post(address, data={"sub": subject} | form)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def token(self, subject: str, *, client: str = CLIENT, name: str = "id_token") -> str:
        """Get a token as another program's sign-in would."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"client_id": client, "response_type": "code", "scope": "openid profile email", "state": "x"}
        asked |= {"nonce": secrets.token_hex(8), "code_challenge": challenge, "code_challenge_method": "S256"}
        asked |= {"redirect_uri": "http://127.0.0.1:9/back"}
        back = self.agree(str(httpx2.URL(f"{self.url}/oauth2/authorize", params=asked)), subject)
        form = {"grant_type": "authorization_code", "code": parse_qs(urlsplit(back).query)["code"][0]}
        form |= {"redirect_uri": asked["redirect_uri"], "code_verifier": verifier}
        answer = httpx2.post(f"{self.url}/oauth2/token", data=form, auth=(client, "any"))
        answer.raise_for_status()
        return answer.json()[name]


@contextmanager
def provider(folder: Path, *, lives_s: int = 3600, names_keys: bool = True) -> Iterator[RunningProvider]:
    """Run a provider."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.oidc_provider", str(port), str(lives_s), "named" if names_keys else "unnamed"]
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(command, folder / "provider.log", signal.SIGTERM, port, lambda: _answers(url))
    server.start()
    try:
        yield RunningProvider(url, server)
    finally:
        server.stop()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/jwks", timeout=1).status_code == 200
    except httpx2.HTTPError:
        return False
