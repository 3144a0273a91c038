"""Storage of a bundle under a fence, with patience for a store that fails. Nothing is visible before the commit."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from app.jobs.records import Claim, artifact_key
from app.logs import first_line
from app.storage import ArtifactStore, StoredArtifact, StoreUnavailable
from worker.protocol import ChildUnreliable, is_plain

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE_S = 10.0
_MOST_FILES = 10_000
_DEEPEST = 16
_LONGEST_NAME = 200  # bytes; the store's own names are longer by a suffix
_SPECIAL = frozenset('\\:*?"<>|')


def store_bundle(
    store: ArtifactStore,
    claim: Claim,
    bundle: Path,
    *,
    most_bytes: int,
    wait_s: float,
    interrupted: Callable[[], bool],
    stopping: Callable[[], bool],
) -> list[StoredArtifact] | None:
    """Store every file of a bundle.

    A computed result is worth waiting for: where the store is full or out of reach, a file is tried again until time is up.

    Args:
        store: The artifact store.
        claim: The claim whose fence the files go under.
        bundle: Folder of the bundle.
        most_bytes: The largest size of all files.
        wait_s: Seconds to wait for the store in all.
        interrupted: Returns whether storing has become pointless; asked before each attempt.
        stopping: Returns whether this worker must end soon; it then does not wait for the store.

    Returns:
        The stored files, or None where storing was interrupted.

    Raises:
        ChildUnreliable: The bundle holds something else than plain files and folders.
        OSError: The store failed for longer than ``wait_s``.
        StoreUnavailable: The store was out of reach for longer than ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    stored: list[StoredArtifact] = []
    for path in files_of(bundle, most_bytes=most_bytes):
        name = path.relative_to(bundle).as_posix()
        pause_s = 0.5
        while True:
            if interrupted():
                return None
            try:
                size, sha256 = store.put(artifact_key(claim.job_id, claim.fence, name), path)
                break
            except (OSError, StoreUnavailable) as error:
                if stopping():
                    return None
                if time.monotonic() + pause_s > deadline:
                    raise
                _log.warning("job.store_failed", file=name, error=type(error).__name__, reason=first_line(error))
            _sleep(pause_s, lambda: interrupted() or stopping())
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        stored.append(StoredArtifact(name, size, sha256))
    return stored


def files_of(bundle: Path, *, most_bytes: int) -> list[Path]:
    """List the files of a bundle in order. A link would lead the supervisor, who may read more than the child, to others.

    Args:
        bundle: Folder of the bundle.
        most_bytes: The largest size of all files. One with holes is small where it is, and large wherever it is copied to.

    Raises:
        ChildUnreliable: There is a link, a second name of a file, a pipe or the like; or more, deeper or other names than any
            bundle of ours has, which disks, databases or other systems would not take.
    """
    if bundle.is_symlink():
        raise ChildUnreliable("the bundle is a link")
    found: list[Path] = []
    left = most_bytes
    folders = [bundle] if bundle.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for path in (Path(entry.path) for entry in entries):
                name = path.relative_to(bundle)
                if len(name.parts) > _DEEPEST or not _is_plain_name(path.name):
                    raise ChildUnreliable(f"{ascii(str(name))[:200]} is no name of a file of a bundle")
                mode = path.lstat()
                if stat.S_ISDIR(mode.st_mode):
                    folders.append(path)
                elif is_plain(mode):
                    found.append(path)
                    left -= mode.st_size
                else:
                    raise ChildUnreliable(f"{name} is no plain file")
                if len(found) + len(folders) > _MOST_FILES or left < 0:
                    raise ChildUnreliable(f"the bundle has more than {_MOST_FILES} files, or than {most_bytes} bytes")
    return sorted(found)


def _is_plain_name(name: str) -> bool:
    """Return whether a name is text that every file system and terminal takes for a name."""
    return name.isprintable() and not _SPECIAL & set(name) and len(name.encode()) <= _LONGEST_NAME


def _sleep(seconds: float, interrupted: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupted():
        time.sleep(0.1)
