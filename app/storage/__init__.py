"""The artifact store: one interface, a folder or an S3-compatible service behind it."""

from __future__ import annotations

from app.settings import Settings
from app.storage.base import ArtifactMissing, ArtifactStore, StoredArtifact, StoreUnavailable
from app.storage.local import LocalArtifactStore

__all__ = ["ArtifactMissing", "ArtifactStore", "LocalArtifactStore", "StoreUnavailable", "StoredArtifact", "create_store"]


def create_store(settings: Settings) -> ArtifactStore:
    """Build the store that the settings name; connects to nothing."""
    if settings.artifacts_url:
        from app.storage.s3 import S3ArtifactStore

        return S3ArtifactStore(settings.artifacts_url)
    return LocalArtifactStore(settings.resolved_artifacts_dir)
