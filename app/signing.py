"""The key that bundles are signed with, and the public keys by which users verify them.

A worker needs the private key, and only its supervisor reads it. The API publishes public keys, and needs no private one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.settings import Settings, SettingsInvalid

_FILE = "signing-key.pem"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those of sigstore's bundles
_LONGEST = 64 * 1024
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem makes one"
_DERIVE = "openssl ec -in key.pem -pubout -out key.pub makes one"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. Its id is the sha256 of its PEM form, by which signatures name their key."""

    id: str
    pem: str


def private_key_path(settings: Settings) -> Path | None:
    """Return the file of the private key; None where bundles are not signed.

    With a database of its own, a service may have many hosts, and each would make another key: there the operator gives one.
    The local profile makes its key in the data folder when it is first asked for.

    Raises:
        SettingsInvalid: The file is not the private key that it should be.
        OSError: The data folder cannot be written.
    """
    if settings.signing_key is not None:
        _private_key(settings.signing_key)
        return settings.signing_key
    if settings.database_url:
        return None
    path = settings.data_dir / _FILE
    if not path.is_file():
        _make(path)
    _private_key(path)
    return path


def public_key_of(path: Path) -> PublicKey:
    """Return the public key that belongs to the private key of a file. Raises `SettingsInvalid`."""
    return _public(_private_key(path).public_key())


def public_keys(settings: Settings) -> tuple[PublicKey, ...]:
    """Return the public keys to publish, the current one first; none where bundles are not signed.

    Raises:
        SettingsInvalid: A file is not the key that it should be.
        OSError: The data folder cannot be written.
    """
    if settings.signing_public_keys:
        return tuple(dict.fromkeys(_public(_public_key(path)) for path in settings.signing_public_keys))
    path = private_key_path(settings)
    return () if path is None else (public_key_of(path),)


def check(settings: Settings) -> None:
    """Read the keys that settings name, and make none. Raises `SettingsInvalid`."""
    if settings.signing_key is not None or settings.signing_public_keys:
        public_keys(settings)


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    name = "COPPICE_SIGNING_KEY"
    try:
        key = serialization.load_pem_private_key(_content(path, name), password=None)
    except (TypeError, ValueError):  # encrypted, or anything but PEM
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise SettingsInvalid(f"{name}: must name the PEM file of a private key on the curve P-256, not encrypted; {_MAKE}")
    return key


def _public_key(path: Path) -> ec.EllipticCurvePublicKey:
    name = "COPPICE_SIGNING_PUBLIC_KEYS"
    try:
        key = serialization.load_pem_public_key(_content(path, name))
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise SettingsInvalid(f"{name}: must name PEM files of public keys on the curve P-256; {_DERIVE}")
    return key


def _content(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST)
    except OSError as error:
        raise SettingsInvalid(f"{name}: the file {path} cannot be read ({error.strerror})") from None


def _public(key: ec.EllipticCurvePublicKey) -> PublicKey:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(pem).hexdigest(), pem.decode())


def _make(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    # As with the server's secret: the file appears when it is complete, and the first of two processes wins.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
