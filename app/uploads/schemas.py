"""Uploads as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from app.inspection.records import UploadKind
from app.uploads.records import Upload


class UploadedFileView(BaseModel):
    """One file of an upload."""

    path: str
    size: int
    sha256: str


class UploadView(BaseModel):
    """An upload. Its ``id`` is what a job names as its model or data set."""

    id: str
    object: Literal["upload"] = "upload"
    kind: UploadKind
    size: int
    files: list[UploadedFileView]
    created_at: datetime

    @classmethod
    def of(cls, upload: Upload) -> UploadView:
        """Show an upload."""
        return cls(
            id=upload.id,
            kind=upload.kind,
            size=upload.size,
            files=[UploadedFileView(path=file.path, size=file.size, sha256=file.sha256) for file in upload.files],
            created_at=datetime.fromtimestamp(upload.created_at, UTC),
        )


class UploadList(BaseModel):
    """Uploads, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[UploadView]
    has_more: bool
    next: str | None
