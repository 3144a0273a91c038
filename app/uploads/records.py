"""Uploads as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from app.inspection.records import UPLOAD_ID, UploadedFile, UploadKind


@dataclass(frozen=True, slots=True)
class Upload:
    """Checked content that jobs of its owner may name by its id."""

    id: str
    owner: str
    kind: UploadKind
    size: int
    files: tuple[UploadedFile, ...]
    created_at: float


def is_upload_id(reference: str) -> bool:
    """Return whether a reference is the id of an upload, not a Hub id or a path."""
    return UPLOAD_ID.fullmatch(reference) is not None


def shown_reference(reference: str) -> str:
    """Show uploads by their ids: where the server keeps them is nobody's business."""
    last = reference.rpartition("/")[2]
    return last if is_upload_id(last) else reference
