"""Pushing to a registry of containers, as an OCI artifact of one layer a file, by oras.

Each layer is named by its path, as the command line tool ``oras`` names files: ``oras pull`` writes the bundle's folder.
Of the library we take what is about credentials. Its own uploads read whole files into memory, wait without a limit, and
repeat what a registry has refused for two minutes (docs/decisions/0118).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from coppice.pushing.base import Account, Pushed, PushRefused, PushUnreachable
from coppice.pushing.bundle import Bundle, BundleFile
from coppice.pushing.destinations import OciArtifact

if TYPE_CHECKING:
    import requests

ARTIFACT_TYPE = "application/vnd.coppice.bundle.v1"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_TRIES = 3
_TIMEOUT_S = (10, 120)  # to connect; between two pieces of an answer


def push(bundle: Bundle, to: OciArtifact, account: Account) -> Pushed:
    """Send the files that the registry does not have, then the manifest, by which the tag leads to them.

    Raises:
        PushRefused: There are no credentials, or none that may write there.
        PushUnreachable: Nothing answers, or the registry is out of order.
    """
    with _translated(to):
        registry = _Registry(to)
        for file in bundle.files:
            if registry.has(f"sha256:{file.sha256}"):
                account.skip(file)
            else:
                account.begin(file)
                with file.source.open("rb") as content:
                    registry.send(f"sha256:{file.sha256}", file.size, _Told(content, file.size, account))
                account.finish(file)
        empty = f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}"
        if not registry.has(empty):
            registry.send(empty, len(_EMPTY), _EMPTY)
        digest = registry.tag(_manifest(bundle, empty))
    return Pushed(f"oci://{to.registry}/{to.name}:{to.tag}", digest)


def _manifest(bundle: Bundle, empty: str) -> dict[str, Any]:
    """Return the artifact's manifest. It holds no time, so that the same bundle has the same digest."""
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": len(_EMPTY)},
        "layers": [_layer(file) for file in bundle.files],
        "annotations": {"org.opencontainers.image.title": "Coppice bundle", "io.coppice.manifest.sha256": bundle.sha256},
    }


def _layer(file: BundleFile) -> dict[str, Any]:
    annotations = {"org.opencontainers.image.title": file.path}
    return {
        "mediaType": "application/octet-stream",
        "digest": f"sha256:{file.sha256}",
        "size": file.size,
        "annotations": annotations,
    }


class _Told:
    """A file that tells how much of it was read, and is as long as it was when it was verified."""

    def __init__(self, file: BinaryIO, size: int, account: Account) -> None:
        self._file, self._size, self._account = file, size, account

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._account.add(len(chunk))
        return chunk


class _Registry:
    """A repository of a registry: credentials and tokens are oras' part, requests are ours."""

    def __init__(self, to: OciArtifact) -> None:
        import oras.container
        import oras.provider
        from oras.logger import logger

        logger.log_handler = []  # it would print beside our own sentences
        insecure = to.registry.partition(":")[0] in _LOOPBACK
        self._base = f"{'http' if insecure else 'https'}://{to.registry}/v2/{to.name}"
        self._tag = to.tag
        self._no_credentials = _no_credentials(to)
        self._host = to.registry
        basic = _wants_basic(self._base.removesuffix(f"/{to.name}"))
        self._own: Any = oras.provider.Registry(to.registry, insecure=insecure, auth_backend="basic" if basic else "token")
        _limit(self._own.session)
        _give_credentials(self._own, oras.container.Container(f"{to.registry}/{to.name}:{to.tag}"))
        if basic and not getattr(self._own.auth, "_basic_auth", None):
            raise PushRefused(self._no_credentials)

    def has(self, digest: str) -> bool:
        """Ask whether the registry has a blob."""
        answer = self._ask("HEAD", f"{self._base}/blobs/{digest}")
        if answer.status_code not in (200, 404):
            answer.raise_for_status()
        return answer.status_code == 200

    def send(self, digest: str, size: int, content: Any) -> None:
        """Send a blob, read as it is sent."""
        from oras.utils import append_url_params

        begun = self._ask("POST", f"{self._base}/blobs/uploads/")
        begun.raise_for_status()
        where = urljoin(begun.url, begun.headers["Location"])
        url = append_url_params(where, {"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if urlsplit(where).netloc == self._host:  # else a store of the registry's: its address holds all that it needs
            headers |= self._own.auth.get_auth_header()
        # Not as the library asks: it would repeat a refused request with a file that was read already.
        self._own.session.put(url, data=content, headers=headers).raise_for_status()

    def tag(self, manifest: dict[str, Any]) -> str:
        """Put the manifest, and return its digest."""
        body = json.dumps(manifest, sort_keys=True).encode()
        answer = self._ask("PUT", f"{self._base}/manifests/{self._tag}", data=body, headers={"Content-Type": _MANIFEST})
        answer.raise_for_status()
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _ask(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> requests.Response:
        own = {**(headers or {}), **self._own.auth.get_auth_header()}
        answer = self._own.session.request(method, url, headers=own, **options)
        if answer.status_code not in (401, 403) or "Www-Authenticate" not in answer.headers:
            return answer
        own, is_known = self._own.auth.authenticate_request(answer, own, refresh=True)  # a token of another scope is asked for
        if not is_known:
            raise PushRefused(self._no_credentials)
        return self._own.session.request(method, url, headers=own, **options)


def _limit(session: requests.Session) -> None:
    """Let no request wait for ever, as the library's would; connections that fail are tried again."""
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *further: Any, **options: Any) -> requests.Response:
            return super().send(request, *further, **{**options, "timeout": _TIMEOUT_S})

    for scheme in ("http://", "https://"):
        session.mount(scheme, Limited(max_retries=_TRIES))


def _wants_basic(base: str) -> bool:
    """Ask how the registry wants to be shown credentials: at once, or for a token."""
    import requests

    answer = requests.get(f"{base}/", timeout=20)
    return answer.status_code == 401 and answer.headers.get("Www-Authenticate", "").lower().startswith("basic")


def _give_credentials(registry: Any, container: Any) -> None:
    """Give what docker login or oras login have kept, or ORAS_USER and ORAS_PASS."""
    folder = os.environ.get("DOCKER_CONFIG")
    kept = Path(folder) / "config.json" if folder else None
    registry.auth.load_configs(container, configs=[str(kept)] if kept is not None and kept.is_file() else None)
    user, password = os.environ.get("ORAS_USER"), os.environ.get("ORAS_PASS")
    if user and password:
        registry.auth.set_basic_auth(user, password)


@contextmanager
def _translated(to: OciArtifact) -> Generator[None]:
    import requests

    try:
        yield
    except requests.HTTPError as error:
        raise _refusal(0 if error.response is None else error.response.status_code, to) from None
    except requests.RequestException as error:
        raise PushUnreachable(
            f"no answer from the registry {to.registry} ({type(error).__name__}); is its name right?"
        ) from None


def _no_credentials(to: OciArtifact) -> str:
    return f"{to.registry} wants credentials: docker login {to.registry}, or oras login, or set ORAS_USER and ORAS_PASS"


def _refusal(status: int, to: OciArtifact) -> PushRefused | PushUnreachable:
    match status:
        case 401:
            return PushRefused(f"{to.registry} does not take the credentials; docker login {to.registry} renews them")
        case 403:
            return PushRefused(f"the credentials may not write to {to.registry}/{to.name}; they need the right to push there")
        case 404:
            return PushRefused(f"{to.registry} has no place {to.name}, or speaks no OCI; some registries want it made first")
        case 413:
            return PushRefused(f"{to.registry} takes no files as large as these")
        case _ if status >= 500 or status == 429:
            return PushUnreachable(f"{to.registry} is busy or out of order ({status}); push again later")
        case _:
            return PushRefused(f"{to.registry} refused ({status})")
