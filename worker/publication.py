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
        ChildUnreliable: The bundle holds something else than plain files and folders.
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


def files_of(bundle: Path) -> list[Path]:
    """List the files of a bundle in order. A link would lead the supervisor, who may read more than the child, to others.

    Raises:
        ChildUnreliable: There is a link, a second name of a file, a pipe or the like.
    """
    if bundle.is_symlink():
        raise ChildUnreliable("the bundle is a link")
    found: list[Path] = []
    for parent, folders, files in os.walk(bundle):
        for name in (*folders, *files):
            path = Path(parent, name)
            mode = path.lstat()
            if stat.S_ISDIR(mode.st_mode):
                continue
            if not is_plain(mode):
                raise ChildUnreliable(f"{path.relative_to(bundle)} is no plain file")
            found.append(path)
    return sorted(found)


def _sleep(seconds: float, interrupted: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupted():
        time.sleep(0.1)
