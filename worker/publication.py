"""Storage of a bundle under a fence, with patience for a store that fails. Nothing is visible before the commit."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from app.jobs.records import Claim, artifact_key
from app.logs import first_line
from app.storage import ArtifactStore, StoredArtifact, StoreUnavailable

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE_S = 10.0


def store_bundle(
    store: ArtifactStore,
    claim: Claim,
    bundle: Path,
    *,
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
        wait_s: Seconds to wait for the store in all.
        interrupted: Returns whether storing has become pointless; asked before each attempt.
        stopping: Returns whether this worker must end soon; it then does not wait for the store.

    Returns:
        The stored files, or None where storing was interrupted.

    Raises:
        BundleUnsafe: The bundle holds a link, or anything else that is no plain file.
        OSError: The store failed for longer than ``wait_s``.
        StoreUnavailable: The store was out of reach for longer than ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    stored: list[StoredArtifact] = []
    for path in files_of(bundle):
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


class BundleUnsafe(OSError):
    """A bundle holds what no bundle has. Its child read hostile files, and may have been made to do that."""


def files_of(bundle: Path) -> list[Path]:
    """List the files of a bundle in order.

    The supervisor may read what the child may not: a link in the bundle would have it publish any file of the host.

    Raises:
        BundleUnsafe: There is a link, a pipe, a device or a socket.
    """
    files: list[Path] = []
    for path in sorted((bundle, *bundle.rglob("*"))):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            files.append(path)
        elif not stat.S_ISDIR(mode):
            raise BundleUnsafe(f"the bundle holds {path.relative_to(bundle).as_posix()!r}, which is no plain file")
    return files


def _sleep(seconds: float, interrupted: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupted():
        time.sleep(0.1)
