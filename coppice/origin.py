"""Proof of a bundle's origin, for ``coppice verify``: its signature, its files, and the statement of where it comes from."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pruning_core.files.provenance import PROVENANCE_FILE, SIGNATURE_FILE, Statement

if TYPE_CHECKING:
    from model_signing.manifest import Manifest

_LARGEST_SIGNATURE = 64 * 2**20
_LISTED = 10


class OriginUnproven(Exception):
    """A bundle is not what the owner of a key has signed. The message says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a signature proves.

    Attributes:
        key_id: Id of the key that has signed.
        files: The sha256 of every file, by its path.
        statement: Where the bundle comes from; None where its signer did not say.
    """

    key_id: str
    files: dict[str, str]
    statement: Statement | None


def key_id_of(key: Path) -> str:
    """Return the id of a public key, as the service publishes it.

    Raises:
        ValueError: The file is no PEM public key.
        TypeError: It is a key of another kind than those that sign bundles.
        OSError: The file cannot be read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        public = serialization.load_pem_public_key(key.read_bytes())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise TypeError("not an elliptic curve key")
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def verify(bundle: Path, key: Path) -> Origin:
    """Verify the signature of a bundle, every file of it, and that its statement is about these files.

    Args:
        bundle: Folder of the bundle.
        key: PEM file of the public key that is trusted.

    Raises:
        OriginUnproven: The bundle is not signed, not by this key, or not as it was signed.
        ValueError: The file of the key holds no public key.
        TypeError: It holds one of another kind than those that sign bundles.
        OSError: A file cannot be read.
    """
    key_id = key_id_of(key)
    signature = bundle / SIGNATURE_FILE
    if not signature.is_file():
        raise OriginUnproven(
            f"not signed: there is no {SIGNATURE_FILE} in it. Services sign the bundles they make, and coppice run signs none; "
            "or the bundle is older than signatures, its service has no key, or the signature was taken away: nothing proves "
            "its origin"
        )
    _refuse_oddities(bundle)
    signed_by = _hint(signature)
    if signed_by is not None and signed_by != key_id:
        raise OriginUnproven(f"signed by another key: by {signed_by}, and --key is {key_id}")
    files = _verified(bundle, signature, key)
    return Origin(key_id, files, _statement(bundle, files))


def hold_against_signature(bundle: Path, found: dict[str, str]) -> str:
    """See that files are those which a signature is about. Whose it is, is not proven: anybody could have made it.

    Args:
        bundle: Folder of the bundle, with a signature.
        found: The sha256 of every file but the signature, by its path.

    Returns:
        The id of the key that the signature says it is by.

    Raises:
        OriginUnproven: The files are others, or the signature is none.
    """
    signature = bundle / SIGNATURE_FILE
    try:
        signed = _signed(signature)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OriginUnproven(f"{SIGNATURE_FILE} is no signature, or was changed") from None
    if found != signed:
        raise OriginUnproven(_differences(found, signed))
    return _hint(signature) or "unknown"


def _verified(bundle: Path, signature: Path, key: Path) -> dict[str, str]:
    """Verify signature and files by the stock library, and return the sha256 of each file."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import hashing, verifying

    hashed: list[Manifest] = []

    class Remembering(hashing.Config):
        """Hashes as the stock library does, and remembers the result, for messages."""

        def hash(self, *paths: Any, **options: Any) -> Manifest:
            manifest = super().hash(*paths, **options)
            hashed.append(manifest)
            return manifest

    # Nothing but the signature may be left out, and links to files count as what they lead to, as in the Hub's cache.
    config = Remembering().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False).set_allow_symlinks(True)
    verifier = verifying.Config().set_hashing_config(config).use_elliptic_key_verifier(public_key=key)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a hint on older signatures
            verifier.verify(bundle, signature)
    except InvalidSignature:
        raise OriginUnproven(f"the signature is not of this key, or {SIGNATURE_FILE} was changed") from None
    except Exception as error:  # the library has no errors of its own: what a broken signature raises depends on where it broke
        if isinstance(error, OSError):
            raise
        if not hashed:
            raise OriginUnproven(f"{SIGNATURE_FILE} is no signature by this key ({type(error).__name__})") from None
        raise OriginUnproven(_differences(_digests(hashed[0]), _signed(signature))) from None
    left_out = _ignored(signature) - {SIGNATURE_FILE}
    if left_out:
        raise OriginUnproven(f"the signature leaves files out: {_listed(left_out)}")
    return _digests(hashed[0])


def _refuse_oddities(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file() or (path.is_dir() and not path.is_symlink()):
            continue
        name = ascii(path.relative_to(bundle).as_posix())
        raise OriginUnproven(f"{name} is a link to a folder or to nothing, or no file at all: it cannot be verified")


def _digests(manifest: Manifest) -> dict[str, str]:
    return {file.identifier: file.digest.digest_hex for file in manifest.resource_descriptors()}


def _payload(signature: Path) -> dict[str, Any]:
    """Return what was signed. Its signature must be verified apart from this."""
    with signature.open("rb") as file:
        document = json.loads(file.read(_LARGEST_SIGNATURE))
    return json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))


def _signed(signature: Path) -> dict[str, str]:
    return {file["name"]: file["digest"] for file in _payload(signature)["predicate"]["resources"]}


def _ignored(signature: Path) -> set[str]:
    return {str(path) for path in _payload(signature)["predicate"]["serialization"].get("ignore_paths", [])}


def _hint(signature: Path) -> str | None:
    """Return the id of the key that a signature says it is by. Not proven; for a better message only."""
    try:
        with signature.open("rb") as file:
            hint = json.loads(file.read(_LARGEST_SIGNATURE))["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return hint if isinstance(hint, str) and len(hint) == 64 and hint.isalnum() else None


def _differences(found: dict[str, str], signed: dict[str, str]) -> str:
    changed = {name for name in found.keys() & signed.keys() if found[name] != signed[name]}
    parts = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("changed", changed),
            ("missing", signed.keys() - found.keys()),
            ("not signed, and there all the same", found.keys() - signed.keys()),
        )
        if names
    ]
    return (
        f"the files are not those that were signed; {'; '.join(parts)}" if parts else "the files are not those that were signed"
    )


def _listed(names: Any) -> str:
    # As Python writes them: a name may hold what a terminal would obey.
    shown = [ascii(name) for name in sorted(names)]
    more = len(shown) - _LISTED
    return ", ".join(shown[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _statement(bundle: Path, files: dict[str, str]) -> Statement | None:
    """Read the statement, which the signature covers as it does every file, and hold it against the files."""
    if PROVENANCE_FILE not in files:
        return None
    try:
        statement = Statement.model_validate_json((bundle / PROVENANCE_FILE).read_bytes())
    except ValidationError:
        raise OriginUnproven(f"{PROVENANCE_FILE} is no statement of SLSA provenance") from None
    rest = {name: digest for name, digest in files.items() if name != PROVENANCE_FILE}
    if statement.digests != rest:
        raise OriginUnproven(f"{PROVENANCE_FILE} is about other files; {_differences(rest, statement.digests)}")
    return statement
