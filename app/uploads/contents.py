"""Where the content of uploads is: in a folder that API and workers share, or in the artifact store, with a cache beside each.

The store holds content under ``uploads/<id>/<path>``. A host fetches it into its cache when it needs it, each file against the
digest that the database has, and makes room by what was not used for longest and nobody uses now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import structlog

from app.disk import free_bytes
from app.inspection.records import UploadedFile
from app.settings import Settings
from app.storage import ArtifactMissing, ArtifactStore, create_store
from app.uploads.records import Upload, is_upload_id

_log = structlog.get_logger(__name__)

_PREFIX = "uploads"
_MARKS = ".used"  # a file for each content: when it was last used, and locked by who uses it
DRAFTS = ".incoming"
_JUST_USED_S = 600.0  # a submit looks at content for seconds, and holds no lock
_PAGE = 1000


class ContentGone(Exception):
    """Content that was just stored was deleted by somebody else, and is to be stored again."""


class FolderContents:
    """Content in a folder that all processes share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def store(self, upload_id: str, files: Sequence[UploadedFile], folder: Path) -> None:
        """Make content lasting before anybody has a claim to it: here there is nothing to do before `claimed`."""

    def claimed(self, upload_id: str, files: Sequence[UploadedFile], folder: Path) -> None:
        """Put content in its place. The caller's transaction has its lock, and a claim to it."""
        del files
        target = self._root / upload_id
        if not target.exists():
            folder.rename(target)

    def local(self, upload: Upload) -> Path:
        """Return the folder of some content on this host."""
        return self._root / upload.id

    @contextmanager
    def in_use(self, upload: Upload, interrupted: Callable[[], bool]) -> Generator[Path]:
        """Keep some content on this host while it is used."""
        del interrupted
        yield self.local(upload)

    def ids(self) -> Iterator[str]:
        """Yield what there is."""
        if self._root.is_dir():
            yield from sorted(path.name for path in self._root.iterdir() if is_upload_id(path.name))

    def drop(self, upload_id: str) -> bool:
        """Take content away. The caller's transaction has its lock, and nobody has a claim. Return whether there was any."""
        target = self._root / upload_id
        if not target.exists():
            return False
        aside = self._root / DRAFTS / uuid4().hex
        aside.parent.mkdir(parents=True, exist_ok=True)
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return True


class StoreContents:
    """Content in the artifact store, and a cache of it in a folder of this host.

    Args:
        settings: Names the store, the folder and how large it may be.
        store: The store; None: one of its own, made when it is needed.
    """

    def __init__(self, settings: Settings, store: ArtifactStore | None = None) -> None:
        self._settings = settings
        self._given = store
        self._root = settings.resolved_uploads_dir

    @cached_property
    def _store(self) -> ArtifactStore:
        return create_store(self._settings) if self._given is None else self._given

    def store(self, upload_id: str, files: Sequence[UploadedFile], folder: Path) -> None:
        """Put content into the store, before anybody has a claim to it. OSError and `StoreUnavailable`: perhaps later."""
        for file in files:
            self._store.put(_key(upload_id, file.path), folder / file.path)

    def claimed(self, upload_id: str, files: Sequence[UploadedFile], folder: Path) -> None:
        """See that what was put is there. Who deletes does so under the lock that the caller has, and sees the claim after.

        Raises:
            ContentGone: It was deleted before there was a claim.
        """
        if not {_key(upload_id, file.path) for file in files} <= set(self._keys(upload_id)):
            raise ContentGone(upload_id)
        with contextlib.suppress(OSError):  # it is here already, and a submit is likely next; else it is fetched
            self._mark(upload_id, made=True)
            folder.rename(self._root / upload_id)

    def local(self, upload: Upload) -> Path:
        """Return the folder of some content on this host, fetched where it is not there."""
        target = self._root / upload.id
        if target.is_dir():  # a job may read it, under a lock that lasts
            os.utime(self._mark(upload.id, made=True))
        else:
            self._fetch_locked(upload, lambda: False)
        return target

    @contextmanager
    def in_use(self, upload: Upload, interrupted: Callable[[], bool]) -> Generator[Path]:
        """Keep some content on this host while it is used.

        Args:
            upload: What is used.
            interrupted: Asked between pieces whether to give up, which raises `InterruptedError`.
        """
        while True:
            if not (self._root / upload.id).is_dir():
                self._fetch_locked(upload, interrupted)
            with self._marked(upload.id, fcntl.LOCK_SH):
                folder = self._root / upload.id
                if folder.is_dir():  # nobody took it away between the two locks
                    yield folder
                    return

    def ids(self) -> Iterator[str]:
        """Yield what there is in the store, and in the cache of this host."""
        found = {path.name for path in self._root.iterdir()} if self._root.is_dir() else set[str]()
        after = ""
        while page := self._store.keys(_PREFIX, after=after, limit=_PAGE):
            found |= {key.split("/")[1] for key in page}
            after = page[-1]
        yield from sorted(name for name in found if is_upload_id(name))

    def drop(self, upload_id: str) -> bool:
        """Take content away from the store and from this host; from other caches it goes as they need room, or are swept."""
        kept = bool(self._keys(upload_id))
        self._store.delete_prefix(f"{_PREFIX}/{upload_id}")
        return self._evict(upload_id) or kept

    def _fetch_locked(self, upload: Upload, interrupted: Callable[[], bool]) -> None:
        with self._marked(upload.id, fcntl.LOCK_EX):  # others that need it wait for one to fetch it
            if not (self._root / upload.id).is_dir():
                self._fetch_all(upload, interrupted)

    def _fetch_all(self, upload: Upload, interrupted: Callable[[], bool]) -> None:
        self._make_room(upload.size, keep=upload.id)
        draft = self._root / DRAFTS / uuid4().hex
        draft.mkdir(parents=True)
        begun = time.monotonic()
        try:
            for file in upload.files:
                self._fetch(upload.id, file, draft / file.path, interrupted)
            draft.rename(self._root / upload.id)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _log.info("upload.fetched", upload_id=upload.id, bytes=upload.size, seconds=round(time.monotonic() - begun, 2))

    def _fetch(self, upload_id: str, file: UploadedFile, to: Path, interrupted: Callable[[], bool]) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        try:
            with to.open("xb") as written:
                for piece in self._store.open(_key(upload_id, file.path), 0, file.size):
                    if interrupted():
                        raise InterruptedError("the fetching was given up")
                    digest.update(piece)
                    written.write(piece)
        except ArtifactMissing:
            raise OSError(errno.ENOENT, "the store lacks a file of an upload") from None
        if digest.hexdigest() != file.sha256:
            raise OSError(errno.EIO, "the store's file of an upload is not the one that was uploaded")

    def _make_room(self, size: int, *, keep: str) -> None:
        """Take away what was not used for longest, until cache and disk have room. Raise OSError where they have none."""
        most, least_free = self._settings.uploads_cache_bytes, self._settings.min_free_bytes
        there = [path for path in self._root.iterdir() if is_upload_id(path.name)] if self._root.is_dir() else []
        sizes = {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in there}
        self._root.mkdir(parents=True, exist_ok=True)
        for name in sorted(sizes, key=self._used_at):
            if sum(sizes.values()) + size <= most and free_bytes(self._root) - size >= least_free:
                return
            if name != keep and self._used_at(name) < time.time() - _JUST_USED_S and self._evict(name):
                del sizes[name]
        if sum(sizes.values()) + size > most or free_bytes(self._root) - size < least_free:
            _log.error("upload.cache_full", needed_bytes=size, most_bytes=most, used_bytes=sum(sizes.values()))
            raise OSError(errno.ENOSPC, f"the cache of uploads has no room for {size} bytes: COPPICE_UPLOADS_CACHE_BYTES")

    def _evict(self, upload_id: str) -> bool:
        target = self._root / upload_id
        if not target.is_dir():
            return False
        try:
            with self._marked(upload_id, fcntl.LOCK_EX | fcntl.LOCK_NB, used=False):
                aside = self._root / DRAFTS / uuid4().hex
                aside.parent.mkdir(parents=True, exist_ok=True)
                target.rename(aside)
        except BlockingIOError:  # a job reads it
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    @contextmanager
    def _marked(self, upload_id: str, how: int, *, used: bool = True) -> Generator[None]:
        mark = self._mark(upload_id)
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
            if used:
                os.utime(mark)
            yield
        finally:
            os.close(descriptor)

    def _mark(self, upload_id: str, *, made: bool = False) -> Path:
        mark = self._root / _MARKS / upload_id
        mark.parent.mkdir(parents=True, exist_ok=True)
        if made:
            mark.touch()
        return mark

    def _used_at(self, upload_id: str) -> float:
        try:
            return self._mark(upload_id).stat().st_mtime
        except OSError:
            return 0.0

    def _keys(self, upload_id: str) -> Iterator[str]:
        after, prefix = "", f"{_PREFIX}/{upload_id}"
        while page := self._store.keys(prefix, after=after, limit=_PAGE):
            yield from page
            after = page[-1]


Contents = FolderContents | StoreContents


def contents_of(settings: Settings, store: ArtifactStore | None = None) -> Contents:
    """Return where uploads are: in the store, where it is an object store and no folder is named for them."""
    if settings.keeps_uploads_in_store:
        return StoreContents(settings, store)
    return FolderContents(settings.resolved_uploads_dir)


def _key(upload_id: str, path: str) -> str:
    return f"{_PREFIX}/{upload_id}/{path}"
