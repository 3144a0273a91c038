"""Uploads under way: what they claim of their owner's quota and of the disk, before their bytes come.

Each draft is a folder with a claim in it, so that all API processes count alike. A claim is locked for as long as its process
lives: one that nobody holds counts for nothing, and is swept later.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.disk import free_bytes
from app.refusals import NoRoom, QuotaExceeded
from app.settings import Settings
from app.uploads.service import UploadService

ARCHIVE, CONTENT, _CLAIM = "archive", "content", "claim"
# What a tar file may have beyond its files, and what may come again although it is there already.
_SLACK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Draft:
    """One upload under way.

    Attributes:
        folder: Its folder.
        owner: Whose it is.
        lock: Descriptor that holds the lock of its claim.
        allowed: Bytes that its archive may have.
    """

    folder: Path
    owner: str
    lock: int
    allowed: int = 0

    @property
    def archive(self) -> Path:
        """Where its body is written to."""
        return self.folder / ARCHIVE

    @property
    def content(self) -> Path:
        """Where its archive is unpacked to."""
        return self.folder / CONTENT


@dataclass(frozen=True, slots=True)
class _Claim:
    """What is known of a draft: whose it is, the bytes that it has announced, and those on the disk."""

    tag: str
    declared: int
    archive: int
    content: int

    @property
    def of_quota(self) -> int:
        """Bytes that its owner has not left any more."""
        return max(self.declared, self.archive, self.content)

    @property
    def of_disk(self) -> int:
        """Bytes that are still to come: an archive, and files of at least about its size."""
        return max(0, 2 * max(self.declared, self.archive) - self.archive - self.content)


class Drafts:
    """The uploads under way, of this process and of others."""

    def __init__(self, settings: Settings, uploads: UploadService) -> None:
        self._settings = settings
        self._uploads = uploads
        self._turn = threading.Lock()

    def begin(self, owner: str, declared: int) -> Draft:
        """Make a draft; `end` it in any case.

        Args:
            owner: Whose upload it is.
            declared: Bytes of the body as announced; 0 where it comes without a length.

        Raises:
            Refused: The server takes no uploads.
            QuotaExceeded: The owner has too many under way, or too few bytes left.
            NoRoom: The disk has no room for it.
        """
        with self._turn:
            folder = self._uploads.draft()
            lock = os.open(folder / _CLAIM, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            draft = Draft(folder, owner, lock)
            try:
                with contextlib.suppress(OSError):  # without locks, drafts of killed processes count until they are swept
                    fcntl.flock(lock, fcntl.LOCK_EX)
                os.write(lock, json.dumps({"owner": _tag(owner), "declared": declared}).encode())
                self._check_number(owner)
                self.check(draft)
                return replace(draft, allowed=declared or self.left(draft))
            except BaseException:
                self.end(draft)
                raise

    def end(self, draft: Draft) -> None:
        """Delete what a draft has left."""
        self._uploads.discard(draft.folder)
        os.close(draft.lock)

    def check(self, draft: Draft) -> None:
        """Insist that the owner's quota and the disk have room for a draft.

        What others have announced takes nothing from the disk before it comes: announcing costs nobody anything.

        Raises:
            QuotaExceeded: The owner's uploads are too large together.
            NoRoom: The disk is full.
        """
        if self.left(draft) < 0:
            raise self.exceeded()
        own = _read(draft.folder)
        self.check_disk(draft, 0 if own is None else own.of_disk)

    def check_disk(self, draft: Draft, coming: int) -> None:
        """Insist that the disk has room for some bytes. Raises `NoRoom`."""
        if free_bytes(draft.folder) - coming < self._settings.min_free_bytes:
            raise NoRoom.on_disk()

    def left(self, draft: Draft) -> int:
        """Return the bytes that a draft may have beyond what it has claimed."""
        kept = self._uploads.total_bytes(draft.owner)
        under_way = sum(claim.of_quota for claim in self._claims() if claim.tag == _tag(draft.owner))
        return self._settings.max_uploads_bytes + _SLACK_BYTES - kept - under_way

    def largest_content(self, draft: Draft) -> int:
        """Return the bytes that a draft's archive may unpack to."""
        own = _read(draft.folder)
        claimed = 0 if own is None else own.of_quota
        return max(0, min(self._settings.max_upload_bytes, self.left(draft) + claimed))

    def exceeded(self) -> QuotaExceeded:
        """Return the refusal of an owner whose uploads are too large together."""
        limit = self._settings.max_uploads_bytes
        return QuotaExceeded("quota_exceeded", f"your uploads may have {limit} bytes together; delete some first")

    def _check_number(self, owner: str) -> None:
        most = self._settings.uploads_at_once
        if sum(claim.tag == _tag(owner) for claim in self._claims()) > most:
            raise QuotaExceeded("busy", f"{most} of your uploads are under way, which is as many as this server takes at once")

    def _claims(self) -> Iterator[_Claim]:
        for folder in self._uploads.drafts():
            claim = _read(folder)
            if claim is not None and not _is_abandoned(folder):
                yield claim


def _tag(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _read(folder: Path) -> _Claim | None:
    try:
        said: dict[str, Any] = json.loads((folder / _CLAIM).read_bytes())
        return _Claim(str(said["owner"]), int(said["declared"]), _size(folder / ARCHIVE), _size(folder / CONTENT))
    except (OSError, ValueError):  # begun or ended in this moment, or no upload
        return None


def _size(path: Path) -> int:
    """Add up what a file, or the files of a folder, have on the disk."""
    total = 0
    for found in path.rglob("*") if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            total += 0 if found.is_dir() else found.stat().st_size
    return total


def _is_abandoned(folder: Path) -> bool:
    """Return whether no process holds a draft."""
    try:
        with (folder / _CLAIM).open("rb") as claim:
            fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or gone, or a file system without locks
        return False
    return True
