"""Pieces of the calibration that a job names, fetched from the artifact store into the folder where the job finds statistics.

Whatever goes wrong costs a warning, and never the job, which gathers anew what it does not find.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from app.db import OUTAGES, Database
from app.jobs.calibrations import CalibrationRepository
from app.jobs.records import Claim, PublishedArtifact
from app.logs import first_line
from app.settings import Settings
from app.storage import ArtifactMissing, ArtifactStore, StoreUnavailable
from pruning_core.kept.room import PARTIAL, SUFFIX, make_room

_log = structlog.get_logger(__name__)

_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}", re.ASCII)


class _Unusable(Exception):
    """A piece is not what was stored, or has no room here."""


class Pieces:
    """Fetches pieces."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore) -> None:
        self._settings, self._database, self._store = settings, database, store

    def fetch(self, claim: Claim, folder: Path | None, interrupted: Callable[[], bool]) -> tuple[str, ...]:
        """Fetch the pieces of the calibration that a job names.

        Args:
            claim: The claim of the job.
            folder: Where the job finds statistics; None: nowhere.
            interrupted: Returns whether fetching has become pointless.

        Returns:
            What the report is to warn of.

        Raises:
            InterruptedError: ``interrupted`` said so.
        """
        if claim.calibration is None or folder is None:
            return ()
        named = f"calibration {claim.calibration}"
        try:
            with self._database.write() as connection:
                pieces = CalibrationRepository(connection).pieces(claim.calibration, owner=claim.owner)
            if not pieces:
                return (f"{named} was deleted before the job began: everything was gathered anew",)
            folder.mkdir(parents=True, exist_ok=True)
        except (*OUTAGES, OSError) as error:
            _log.warning("pieces.not_listed", reason=first_line(error))
            return (f"{named} could not be read: what was not on the worker was gathered anew",)
        failed = [reason for piece in pieces if (reason := self._fetch(piece, folder, interrupted)) is not None]
        if not failed:
            return ()
        reasons = ", ".join(dict.fromkeys(failed))
        return (f"{len(failed)} of {len(pieces)} pieces of {named} could not be used and were gathered anew: {reasons}",)

    def _fetch(self, piece: PublishedArtifact, folder: Path, interrupted: Callable[[], bool]) -> str | None:
        """Fetch one piece. Return why it is not there; None where it is."""
        try:
            self._put(piece, folder / piece.path, interrupted)
        except _Unusable as error:
            return str(error)
        except ArtifactMissing:
            return "no longer in the artifact store"
        except InterruptedError:
            raise
        except (OSError, StoreUnavailable) as error:
            _log.warning("piece.not_fetched", piece=piece.path, reason=first_line(error))
            return "it could not be written" if isinstance(error, OSError) else "the artifact store could not be reached"
        return None

    def _put(self, piece: PublishedArtifact, target: Path, interrupted: Callable[[], bool]) -> None:
        """Put one piece where it belongs, unless it is there already."""
        most = self._settings.statistics_bytes
        if not _NAME.fullmatch(piece.path):  # a job's process has named it
            raise _Unusable("the name is no piece's")
        if _is_here(target, piece):
            os.utime(target, follow_symlinks=False)
            return
        if most and piece.size > most:
            raise _Unusable("larger than COPPICE_STATISTICS_BYTES")
        if shutil.disk_usage(target.parent).free - piece.size < self._settings.min_free_bytes:
            raise _Unusable("the worker's disk is full")
        self._write(piece, target, interrupted)
        make_room(target.parent, most or None, target)

    def _write(self, piece: PublishedArtifact, target: Path, interrupted: Callable[[], bool]) -> None:
        """Write a piece under its name, once it is whole and what was stored. Jobs may write to the folder, too."""
        partial = target.with_name(f"{target.stem}.{os.getpid()}{PARTIAL}")
        with suppress(FileNotFoundError):
            partial.unlink()
        digest, size = hashlib.sha256(), 0
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in self._store.open(piece.key, 0, piece.size):
                    if interrupted():
                        raise InterruptedError
                    digest.update(chunk)
                    size += file.write(chunk)
            if (size, digest.hexdigest()) != (piece.size, piece.sha256):
                raise _Unusable("damaged in the artifact store")
            partial.replace(target)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()


def _is_here(target: Path, piece: PublishedArtifact) -> bool:
    """Return whether a file is the piece already."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return os.fstat(descriptor).st_size == piece.size and hashlib.file_digest(file, "sha256").hexdigest() == piece.sha256
