"""SQL of uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from app.db import now, take_turns
from app.inspection.records import UploadedFile, UploadKind
from app.uploads.models import uploads as _uploads
from app.uploads.records import Upload

_CONTENT_LOCK = 6_226_176  # the first half of the key of PostgreSQL's advisory lock


class UploadRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def lock(self, upload_id: str) -> None:
        """Take turns with everybody else who stores or deletes this content, until the transaction ends."""
        take_turns(self._connection, _CONTENT_LOCK, upload_id)

    def insert(self, upload: Upload) -> None:
        """Insert an upload, with the time of now."""
        values = {
            "owner": upload.owner,
            "id": upload.id,
            "kind": str(upload.kind),
            "size": upload.size,
            "files": [asdict(file) for file in upload.files],
            "created_at": now(),
        }
        self._connection.execute(_uploads.insert().values(**values))

    def get(self, upload_id: str, *, owner: str) -> Upload | None:
        """Read one upload of an owner."""
        query = sa.select(_uploads).where(_uploads.c.id == upload_id, _uploads.c.owner == owner)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _upload(row)

    def list(self, kind: UploadKind, *, owner: str, after: Upload | None, limit: int) -> list[Upload]:
        """List uploads of an owner, newest first, from behind a given one."""
        query = sa.select(_uploads).where(_uploads.c.owner == owner, _uploads.c.kind == str(kind))
        if after is not None:
            query = query.where(sa.tuple_(_uploads.c.created_at, _uploads.c.id) < sa.tuple_(after.created_at, after.id))
        query = query.order_by(_uploads.c.created_at.desc(), _uploads.c.id.desc()).limit(limit)
        return [_upload(row) for row in self._connection.execute(query).mappings()]

    def total_bytes(self, owner: str) -> int:
        """Add up what an owner has uploaded."""
        query = sa.select(sa.func.coalesce(sa.func.sum(_uploads.c.size), 0)).where(_uploads.c.owner == owner)
        return int(self._connection.execute(query).scalar_one())

    def ids_of(self, owner: str, *, limit: int) -> list[str]:
        """List ids of uploads of an owner, in their order."""
        query = sa.select(_uploads.c.id).where(_uploads.c.owner == owner).order_by(_uploads.c.id).limit(limit)
        return list(self._connection.scalars(query))

    def use(self, upload_id: str, *, owner: str) -> None:
        """Note that an owner's upload is used now."""
        mine = sa.and_(_uploads.c.id == upload_id, _uploads.c.owner == owner)
        self._connection.execute(_uploads.update().where(mine).values(used_at=now()))

    def unused(self, *, for_s: float, limit: int) -> list[tuple[str, str]]:
        """List ids and owners of uploads that nobody has used for so long."""
        query = sa.select(_uploads.c.id, _uploads.c.owner).where(_is_unused(for_s)).order_by(_uploads.c.id).limit(limit)
        return [(row.id, row.owner) for row in self._connection.execute(query)]

    def delete_unused(self, upload_id: str, *, owner: str, for_s: float) -> bool:
        """Delete an owner's upload if nobody has used it for so long. Return whether that was so."""
        mine = sa.and_(_uploads.c.id == upload_id, _uploads.c.owner == owner)
        return self._connection.execute(_uploads.delete().where(mine, _is_unused(for_s))).rowcount == 1

    def delete(self, upload_id: str, *, owner: str) -> None:
        """Delete an owner's upload."""
        self._connection.execute(_uploads.delete().where(_uploads.c.id == upload_id, _uploads.c.owner == owner))

    def claimed(self, upload_ids: Sequence[str]) -> set[str]:
        """Return those of some contents that any owner has uploaded."""
        return set(self._connection.scalars(sa.select(_uploads.c.id).where(_uploads.c.id.in_(upload_ids))))


def _is_unused(for_s: float) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(_uploads.c.used_at, _uploads.c.created_at) < now() - for_s


def _upload(found: sa.RowMapping) -> Upload:
    return Upload(
        id=found["id"],
        owner=found["owner"],
        kind=UploadKind(found["kind"]),
        size=found["size"],
        files=tuple(UploadedFile(**file) for file in found["files"]),
        created_at=found["created_at"],
    )
