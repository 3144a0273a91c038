"""The signature of a finished bundle, and the statement of where it comes from. By the supervisor: no child sees the key.

The signature is OpenSSF Model Signing's: a sigstore bundle in ``model.sig`` over a manifest of every file with its sha256. The
stock ``model_signing`` verifies it too. The statement, ``provenance.json``, lies in the bundle, so the signature covers it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import structlog

from app.jobs.records import Claim
from app.settings import Settings, SettingsInvalid
from app.signing import private_key_path, public_key_of
from pruning_core.files.provenance import (
    BUILD_TYPE,
    BUILDER,
    PROVENANCE_FILE,
    SIGNATURE_FILE,
    BuildDefinition,
    Builder,
    ExternalParameters,
    Provenance,
    RunDetails,
    RunMetadata,
    Statement,
    Subject,
    shown_spec,
)
from worker.protocol import ChildUnreliable
from worker.publication import files_of
from worker.scratch import delete_tree
from worker.sources import sources_of

if TYPE_CHECKING:
    from model_signing.manifest import Manifest

_log = structlog.get_logger(__name__)

_VERSIONS = ("coppice-server", "coppice-prune", "torch", "transformers", "safetensors", "datasets")


@dataclass(frozen=True, slots=True)
class BundleSigner:
    """Signs bundles with the service's key, or leaves them as they are where it has none."""

    settings: Settings

    def check(self) -> None:
        """See that bundles can be signed, where they are to be.

        Raises:
            SettingsInvalid: The key cannot be used, or the library is not installed.
            OSError: The data folder cannot be written.
        """
        if private_key_path(self.settings) is not None and find_spec("model_signing") is None:
            raise SettingsInvalid("COPPICE_SIGNING_KEY: signing needs a library: pip install 'coppice-server[worker]'")

    def sign(self, bundle: Path, claim: Claim, *, started: float) -> None:
        """Write ``provenance.json`` and ``model.sig`` into a bundle whose child is gone.

        Args:
            bundle: Folder of the bundle.
            claim: The claim of the job.
            started: When the attempt began, in seconds since the epoch.

        Raises:
            ChildUnreliable: The bundle holds a link, or anything else that is no plain file.
            OSError: A file cannot be read or written, or the key cannot be used any more.
        """
        try:
            key = private_key_path(self.settings)
            key_id = "" if key is None else public_key_of(key).id
        except SettingsInvalid as error:
            raise OSError(str(error)) from error
        if key is None:
            return
        begun = time.monotonic()
        if bundle.is_symlink():  # before anything is deleted: it leads to others' files
            raise ChildUnreliable("the bundle is a link")
        for name in (PROVENANCE_FILE, SIGNATURE_FILE):
            delete_tree(bundle / name)  # whatever the child has left under these names
        files_of(bundle, most_bytes=self.settings.bundle_max_bytes)
        try:
            manifest = _hashed(bundle)
            statement = self._statement(claim, manifest, key_id=key_id, started=started)
            (bundle / PROVENANCE_FILE).write_text(statement.to_json(), encoding="utf-8")
            _sign(bundle, key, _joined(manifest, _hashed(bundle, [bundle / PROVENANCE_FILE])))
        except ValueError as error:  # the library's word for files that it does not sign
            raise OSError(f"the bundle cannot be signed: {error}") from error
        _log.info("job.signed", seconds=round(time.monotonic() - begun, 3))

    def _statement(self, claim: Claim, manifest: Manifest, *, key_id: str, started: float) -> Statement:
        settings = self.settings
        limits = {"device": settings.device or "auto", "threads": settings.threads, "memory_bytes": settings.job_memory_bytes}
        return Statement(
            subject=tuple(
                Subject(name=file.identifier, digest={"sha256": file.digest.digest_hex})
                for file in manifest.resource_descriptors()
            ),
            predicate=Provenance(
                build_definition=BuildDefinition(
                    build_type=BUILD_TYPE,
                    external_parameters=ExternalParameters(spec=shown_spec(claim.spec)),
                    internal_parameters={name: value for name, value in limits.items() if value is not None},
                    resolved_dependencies=sources_of(claim, settings, since=started),
                ),
                run_details=RunDetails(
                    builder=Builder(id=f"{BUILDER}:key:sha256:{key_id}", version=_versions()),
                    metadata=RunMetadata(
                        invocation_id=f"{claim.job_id}/{claim.fence}",
                        started_on=datetime.fromtimestamp(started, UTC),
                        finished_on=datetime.now(UTC),
                    ),
                ),
            ),
        )


def _hashed(bundle: Path, files: Iterable[Path] | None = None) -> Manifest:
    """Hash the files of a bundle, all but the signature. Nothing else is left out: files that git looks for count, too."""
    from model_signing.hashing import Config

    config = Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    return config.hash(bundle, files_to_hash=files)


def _joined(first: Manifest, second: Manifest) -> Manifest:
    """Return one manifest of what two hold, so that large files are hashed once."""
    from model_signing.manifest import FileManifestItem, Manifest, SerializationType

    items = [
        FileManifestItem(path=PurePosixPath(file.identifier), digest=file.digest)
        for part in (first, second)
        for file in part.resource_descriptors()
    ]
    return Manifest(first.model_name, items, SerializationType.from_args(first.serialization_type))


def _sign(bundle: Path, key: Path, manifest: Manifest) -> None:
    from model_signing import hashing, signing

    class Known(hashing.Config):
        """A hashing configuration whose work is done."""

        def hash(self, *_paths: object, **_options: object) -> Manifest:
            return manifest

    config = signing.Config().set_hashing_config(Known()).use_elliptic_key_signer(private_key=key)
    config.sign(bundle, bundle / SIGNATURE_FILE)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
