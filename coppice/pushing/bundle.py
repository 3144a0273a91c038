"""A bundle that is to be pushed: the files of its manifest, each as the manifest says, and nothing else of its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coppice.errors import CoppiceError
from coppice.files import sha256_of
from coppice.origin import OriginUnproven, hold_against_signature, verify
from pruning_core.files.provenance import PROVENANCE_FILE, SIGNATURE_FILE, Sha256

MANIFEST_FILE = "manifest.json"
_BESIDE_MANIFEST = (PROVENANCE_FILE, SIGNATURE_FILE)  # signing adds them after the manifest
_LARGEST_MANIFEST = 64 * 2**20
_CHUNK = 2**20
_LISTED = 5


class NoBundle(CoppiceError):
    """There is no bundle at the path."""


class BundleUnfit(CoppiceError):
    """A bundle is not as its manifest or its signature says. The message says where."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file, verified.

    Attributes:
        path: Its path in the bundle.
        source: Where its content is read; within the bundle's folder.
        changed_ns: When it was last changed, before it was verified.
    """

    path: str
    size: int
    sha256: str
    source: Path
    changed_ns: int

    @property
    def is_as_verified(self) -> bool:
        """Whether nobody has written to the file since it was verified."""
        return self.source.is_file() and self.source.stat().st_mtime_ns == self.changed_ns


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        files: The files of the manifest, then the manifest itself, then statement and signature where it has them.
        sha256: Digest of the manifest, which has the digest of every other file.
        signed_by: Id of the key that has signed, proven where a key was given; None: not signed.
        proven: Whether a key was given, and has signed.
        left_out: Files in the folder that the manifest does not name.
    """

    folder: Path
    files: tuple[BundleFile, ...]
    sha256: str
    signed_by: str | None
    proven: bool
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1]
    files: dict[str, _Entry]


def read_bundle(folder: Path, key: Path | None, show: Callable[[str, float], None]) -> Bundle:
    """Verify a bundle, and return what of it is to be pushed.

    Args:
        folder: Folder of the bundle.
        key: PEM file of the public key that must have signed; None: files must be as the signature says, whoever made it.
        show: Called with what is done and the fraction of the bytes that were read.

    Raises:
        NoBundle: The folder has no manifest.
        BundleUnfit: A file is missing, has other bytes, or leads out of the folder; or the signature is about others.
    """
    manifest = _manifest(folder)
    total = sum(entry.size for entry in manifest.files.values()) or 1
    done, files = 0, list[BundleFile]()
    for name, entry in sorted(manifest.files.items()):
        show("verify", done / total)
        files.append(_verified(folder, name, entry))
        done += entry.size
    beside = [name for name in (MANIFEST_FILE, *_BESIDE_MANIFEST) if (folder / name).is_file() and name not in manifest.files]
    files += [_listed(folder, name) for name in beside]
    named = {file.path for file in files}
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    left_out = tuple(name for name in others if name not in named)
    signed_by = _signer(folder, key, files, left_out)
    digest = next(file.sha256 for file in files if file.path == MANIFEST_FILE)
    return Bundle(folder, tuple(files), digest, signed_by, signed_by is not None and key is not None, left_out)


def _manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise NoBundle(f"{folder} is no bundle: it has no {MANIFEST_FILE}, which every finished bundle has")
    _inside(folder, MANIFEST_FILE)
    with path.open("rb") as file:
        text = file.read(_LARGEST_MANIFEST + 1)
    try:
        return _Manifest.model_validate_json(text)
    except ValidationError:
        raise BundleUnfit(f"{MANIFEST_FILE} is damaged: it must have version 1, and size and sha256 of each file") from None


def _verified(folder: Path, name: str, entry: _Entry) -> BundleFile:
    path = _inside(folder, name)
    if not path.is_file():
        raise BundleUnfit(f"{name!a} is missing, or is no file; {MANIFEST_FILE} names it")
    size, changed_ns = path.stat().st_size, path.stat().st_mtime_ns
    if size != entry.size:
        raise BundleUnfit(f"{name!a} was changed: it has {size} bytes, and {MANIFEST_FILE} says {entry.size}")
    if sha256_of(path) != entry.sha256:
        raise BundleUnfit(f"{name!a} was changed: its sha256 is another than {MANIFEST_FILE} says")
    return BundleFile(name, size, entry.sha256, path, changed_ns)


def _listed(folder: Path, name: str) -> BundleFile:
    path = _inside(folder, name)
    size, changed_ns = path.stat().st_size, path.stat().st_mtime_ns
    return BundleFile(name, size, sha256_of(path), path, changed_ns)


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file of the bundle. What would be read from elsewhere is refused, by name or by link."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise BundleUnfit(f"{MANIFEST_FILE} names {name!a}, which is no path within the bundle")
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleUnfit(f"{name!a} is a link that leads out of the bundle; push a copy with the files themselves: cp -RL")
    return path


def _signer(folder: Path, key: Path | None, files: list[BundleFile], left_out: tuple[str, ...]) -> str | None:
    if key is not None:
        try:
            return verify(folder, key).key_id
        except OriginUnproven as error:
            raise BundleUnfit(str(error)) from None
    if not (folder / SIGNATURE_FILE).is_file():
        return None
    found = {file.path: file.sha256 for file in files if file.path != SIGNATURE_FILE} | dict.fromkeys(left_out, "")
    try:
        return hold_against_signature(folder, found)
    except OriginUnproven as error:
        raise BundleUnfit(str(error)) from None


def few(names: tuple[str, ...] | list[str]) -> str:
    """Return names for a sentence, as Python writes them: one may hold what a terminal would obey."""
    more = len(names) - _LISTED
    return ", ".join(ascii(name) for name in names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def git_oid(file: BundleFile) -> str:
    """Return the name by which git knows a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with file.source.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
