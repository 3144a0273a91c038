"""Use cases of uploads: store, find, list, delete. Content lies under its own hash, once for everybody."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import structlog

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.inspection.content import content_id
from app.inspection.records import UploadedFile, UploadKind
from app.keys.records import Caller
from app.refusals import NotFound, QuotaExceeded, Refused
from app.settings import Settings
from app.storage import ArtifactStore, StoreUnavailable
from app.tenants.repository import TenantRepository
from app.uploads.contents import DRAFTS, ContentGone, contents_of
from app.uploads.records import Upload, is_upload_id
from app.uploads.repository import UploadRepository

_log = structlog.get_logger(__name__)

_DEAD_DRAFT_S = 86_400  # a body without progress is ended long before this
_SWEEP_PAGE = 500
_MOST_TRIES = 3  # of storing what others delete meanwhile

Finder = Callable[[str, UploadKind], Path]


class UploadService:
    """Uploads of all tenants, in a folder that API and workers share, or in the artifact store."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore | None = None) -> None:
        self._settings = settings
        self._database = database
        self._root = settings.resolved_uploads_dir
        self._contents = contents_of(settings, store)

    def folder(self, upload_id: str) -> Path:
        """Return the folder of some content."""
        return self._root / upload_id

    def draft(self) -> Path:
        """Make a folder for one upload under way; `discard` it in any case. `Drafts` counts those that have a claim."""
        folder = self._root / DRAFTS / uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def discard(self, draft: Path) -> None:
        """Delete what an upload under way has left."""
        shutil.rmtree(draft, ignore_errors=True)

    def drafts(self) -> Iterator[Path]:
        """Yield the folders of what is under way."""
        with contextlib.suppress(FileNotFoundError):
            yield from (self._root / DRAFTS).iterdir()

    def total_bytes(self, owner: str) -> int:
        """Add up what an owner has uploaded."""
        with self._database.read() as connection:
            return UploadRepository(connection).total_bytes(owner)

    def keep(self, kind: UploadKind, files: Sequence[UploadedFile], folder: Path, *, caller: Caller) -> tuple[Upload, bool]:
        """Keep the content of an upload.

        Args:
            kind: What it holds.
            files: Its files, checked.
            folder: Where they lie; it is moved to its place.
            caller: Whose it is.

        Returns:
            The upload, and whether it is new to its owner.

        Raises:
            QuotaExceeded: The owner has uploaded too much.
            Conflict: The owner is being deleted.
        """
        upload_id = content_id(kind, files)
        for _again in range(_MOST_TRIES):
            self._contents.store(upload_id, files, folder)
            with contextlib.suppress(ContentGone):
                return self._claim(upload_id, kind, files, folder, caller=caller)
        raise StoreUnavailable("content was deleted as often as it was stored")

    def _claim(
        self, upload_id: str, kind: UploadKind, files: Sequence[UploadedFile], folder: Path, *, caller: Caller
    ) -> tuple[Upload, bool]:
        size = sum(file.size for file in files)
        with self._database.write() as connection:
            TenantRepository(connection).hold_open(caller.owner)
            repository = UploadRepository(connection)
            repository.lock(upload_id)
            earlier = repository.get(upload_id, owner=caller.owner)
            if earlier is not None:
                repository.use(upload_id, owner=caller.owner)
                return earlier, False
            if repository.total_bytes(caller.owner) + size > self._settings.max_uploads_bytes:
                limit = self._settings.max_uploads_bytes
                raise QuotaExceeded("quota_exceeded", f"your uploads may have {limit} bytes together; delete some first")
            repository.insert(Upload(upload_id, caller.owner, kind, size, tuple(files), 0.0))
            AuditRepository(connection).record(Action.UPLOAD_STORED, caller.owner, caller.key_id, upload_id)
            self._contents.claimed(upload_id, files, folder)
            upload = repository.get(upload_id, owner=caller.owner)
        assert upload is not None
        _log.info("upload.stored", upload_id=upload_id, bytes=size)
        return upload, True

    def finder(self, owner: str) -> Finder:
        """Make what finds the folder of an upload by its id, for one owner. It raises `Refused`."""

        def find(upload_id: str, kind: UploadKind) -> Path:
            upload = self._used(upload_id, owner)
            if upload is None or upload.kind != kind:
                raise Refused("upload_not_found", f"there is no uploaded {kind} of this id")
            return self._contents.local(upload)

        return find

    @contextmanager
    def in_use(self, upload_id: str, *, owner: str, interrupted: Callable[[], bool]) -> Generator[Path | None]:
        """Keep the content of an upload on this host while a job reads it; None: the owner has no such upload.

        Args:
            upload_id: Its id.
            owner: Whose job it is.
            interrupted: Asked between pieces of the fetching whether to give up, which raises `InterruptedError`.
        """
        with self._database.read() as connection:
            upload = UploadRepository(connection).get(upload_id, owner=owner)
        if upload is None:
            yield None
            return
        with self._contents.in_use(upload, interrupted) as folder:
            yield folder

    def _used(self, upload_id: str, owner: str) -> Upload | None:
        """Read an upload that a job names, and note its use where unused ones are deleted."""
        if self._settings.uploads_keep_s is None:
            with self._database.read() as connection:
                return UploadRepository(connection).get(upload_id, owner=owner)
        with self._database.write() as connection:
            repository = UploadRepository(connection)
            repository.use(upload_id, owner=owner)
            return repository.get(upload_id, owner=owner)

    def get(self, kind: UploadKind, upload_id: str, *, owner: str) -> Upload:
        """Read one upload. Raises `NotFound`."""
        with self._database.read() as connection:
            upload = UploadRepository(connection).get(upload_id, owner=owner) if is_upload_id(upload_id) else None
        if upload is None or upload.kind != kind:
            raise NotFound("upload_not_found", f"there is no uploaded {kind} of this id")
        return upload

    def list(self, kind: UploadKind, *, owner: str, after: str | None, limit: int) -> tuple[list[Upload], bool]:
        """List a page of uploads, newest first. Also return whether there are more."""
        start = None
        if after is not None:
            try:
                start = self.get(kind, after, owner=owner)
            except NotFound:
                message = "after must be the id of an upload, as given by `next` of the page before"
                raise Refused("invalid_request", message, "after") from None
        with self._database.read() as connection:
            found = UploadRepository(connection).list(kind, owner=owner, after=start, limit=limit + 1)
        return found[:limit], len(found) > limit

    def delete(self, kind: UploadKind, upload_id: str, *, caller: Caller) -> None:
        """Delete an upload; its files too, unless another owner has uploaded the same. Raises `NotFound`."""
        self.get(kind, upload_id, owner=caller.owner)
        with self._database.write() as connection:
            repository = UploadRepository(connection)
            repository.lock(upload_id)
            repository.delete(upload_id, owner=caller.owner)
            AuditRepository(connection).record(Action.UPLOAD_DELETED, caller.owner, caller.key_id, upload_id)
        self.drop_unclaimed(upload_id)
        _log.info("upload.deleted", upload_id=upload_id)

    def sweep(self) -> None:
        """Delete what uploads and deletions that broke off have left. Safe to run twice at once."""
        drafts = self._root / DRAFTS
        for draft in drafts.iterdir() if drafts.is_dir() else ():
            if _untouched_s(draft) > _DEAD_DRAFT_S:
                shutil.rmtree(draft, ignore_errors=True)
                _log.info("upload.swept", draft=draft.name)
        names = list(self._contents.ids())
        for start in range(0, len(names), _SWEEP_PAGE):
            page = names[start : start + _SWEEP_PAGE]
            with self._database.read() as connection:
                claimed = UploadRepository(connection).claimed(page)
            for name in page:
                if name not in claimed and self.drop_unclaimed(name):
                    _log.info("upload.swept", upload_id=name)

    def drop_unclaimed(self, upload_id: str) -> bool:
        """Delete some content, unless an owner has a claim to it."""
        with self._database.write() as connection:
            repository = UploadRepository(connection)
            repository.lock(upload_id)
            return not repository.claimed([upload_id]) and self._contents.drop(upload_id)


def _untouched_s(draft: Path) -> float:
    """Return the seconds since the youngest change of a draft."""
    moments = [0.0]
    for path in (draft, *draft.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # another request is finishing this draft right now
            moments.append(path.stat().st_mtime)
    return time.time() - max(moments)
