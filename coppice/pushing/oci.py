"""Pushing to a registry of containers, as an OCI artifact of one layer a file, by oras.

Each layer is named by its path, as the command line tool ``oras`` names files: ``oras pull`` writes the bundle's folder.
Of the library's behaviour we leave two things out (docs/decisions/0118): it reads whole files into memory to send them, and
repeats what a registry has refused for two minutes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from coppice.pushing.base import Account, Pushed, PushRefused, PushUnreachable
from coppice.pushing.bundle import Bundle, BundleFile
from coppice.pushing.destinations import OciArtifact

ARTIFACT_TYPE = "application/vnd.coppice.bundle.v1"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_TRIES = 3


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
    """A repository of a registry: oras' requests and credentials, without its pauses."""

    def __init__(self, to: OciArtifact) -> None:
        import oras.container
        import oras.provider
        from oras.logger import logger
        from requests.adapters import HTTPAdapter

        logger.log_handler = []  # it would print beside our own sentences
        insecure = to.registry.partition(":")[0] in _LOOPBACK
        self._base = f"{'http' if insecure else 'https'}://{to.registry}/v2/{to.name}"
        self._tag = to.tag
        self._host = to.registry
        basic = _wants_basic(self._base.removesuffix(f"/{to.name}"))
        self._own: Any = oras.provider.Registry(to.registry, insecure=insecure, auth_backend="basic" if basic else "token")
        self._own.session.mount("https://", HTTPAdapter(max_retries=_TRIES))
        _give_credentials(self._own, oras.container.Container(f"{to.registry}/{to.name}:{to.tag}"))
        if basic and not getattr(self._own.auth, "_basic_auth", None):
            raise PushRefused(_no_credentials(to))

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
        if urlsplit(where).netloc == self._host:
            answer = self._ask("PUT", url, data=content, headers=headers)
        else:  # a store of the registry's, whose address holds all it needs: credentials stay here
            answer = self._own.session.request("PUT", url, data=content, headers=headers)
        answer.raise_for_status()

    def tag(self, manifest: dict[str, Any]) -> str:
        """Put the manifest, and return its digest."""
        answer = self._ask("PUT", f"{self._base}/manifests/{self._tag}", json=manifest, headers={"Content-Type": _MANIFEST})
        answer.raise_for_status()
        return f"sha256:{hashlib.sha256(answer.request.body).hexdigest()}"

    def _ask(self, method: str, url: str, **options: Any) -> Any:
        once = type(self._own).do_request.__wrapped__  # as the library asks, credentials and all, without its repetitions
        return once(self._own, url, method, **options)


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
    except ValueError:  # the library's word for a request for credentials that it cannot answer
        raise PushRefused(_no_credentials(to)) from None


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
