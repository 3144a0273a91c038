"""Use cases of the files that jobs have published: find one, stream it, pack all of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import structlog

from app.db import Database
from app.jobs.archive import Archive
from app.jobs.records import Job, PublishedArtifact
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL
from app.refusals import NotFound
from app.storage import ArtifactMissing, ArtifactStore

_log = structlog.get_logger(__name__)


class JobFiles:
    """Files of finished jobs."""

    def __init__(self, database: Database, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def artifact(self, job_id: str, path: str, *, owner: str) -> PublishedArtifact:
        """Find a published file. Raises `NotFound`."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=owner)
            artifact = repository.artifact(job.id, path)
        if artifact is None and job.status in TERMINAL and job.expires_at is not None:
            raise _expired(job.expires_at)
        if artifact is None:
            raise NotFound("not_found", "the job has published no such file; see its artifacts")
        return artifact

    def open(self, job_id: str, artifact: PublishedArtifact, start: int, stop: int) -> Iterator[bytes]:
        """Stream a part of a published file. Raises `NotFound` where the store has lost it."""
        try:
            return self._store.open(artifact.key, start, stop)
        except ArtifactMissing:
            _log.error("artifact.missing", job_id=job_id, path=artifact.path)
            raise NotFound("artifact_gone", "the file is no longer in the artifact store") from None

    def archive(self, job: Job, artifacts: Sequence[PublishedArtifact]) -> Archive:
        """Prepare one archive of a bundle. Raises `NotFound` where there is nothing to put into it."""
        if job.status not in TERMINAL:
            raise NotFound("not_finished", f"the job is {job.status}; its files can be had when it has finished")
        if not artifacts and job.expires_at is not None:
            raise _expired(job.expires_at)
        if not artifacts:
            raise NotFound("no_files", f"the job has {job.status} and has no files")
        moment = int(job.finished_at or job.created_at)
        return Archive(job.public_id, moment, artifacts, self._store)

    def open_archive(self, archive: Archive) -> Iterator[bytes]:
        """Stream an archive. Raises `NotFound` where the store has lost its first file."""
        try:
            return archive.open()
        except ArtifactMissing:
            _log.error("artifact.missing", archive=archive.name)
            raise NotFound("artifact_gone", "the files are no longer in the artifact store") from None


def _expired(moment: float) -> NotFound:
    until = datetime.fromtimestamp(moment, UTC)
    return NotFound("artifact_expired", f"the job's files were kept until {until:%Y-%m-%d %H:%M} UTC; run it again")
