"""The artifact store: one interface, and a folder behind it or what `app.stores` has for the URL of the settings."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import cast

from app import stores
from app.settings import Settings
from app.storage.base import ArtifactMissing, ArtifactStore, StoredArtifact, StoreUnavailable
from app.storage.local import LocalArtifactStore

__all__ = ["ArtifactMissing", "ArtifactStore", "LocalArtifactStore", "StoreUnavailable", "StoredArtifact", "create_store"]


def create_store(settings: Settings) -> ArtifactStore:
    """Build the store that the settings name; connects to nothing."""
    url = settings.artifacts_url
    if not url:
        return LocalArtifactStore(settings.resolved_artifacts_dir)
    made_by = cast("Callable[[str], ArtifactStore]", resolve_name(stores.kind_of(url).made_by))
    return made_by(url)
