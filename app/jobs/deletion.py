"""Use cases of deletion: the rows in one transaction, then the files. What a crash leaves in between, the reaper sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs.removal import RemovalRepository
from app.keys.records import Caller
from app.logs import first_line
from app.refusals import Conflict, NotFound
from app.storage import ArtifactStore, StoreUnavailable

_log = structlog.get_logger(__name__)


class JobDeletion:
    """Deletes jobs and their files."""

    def __init__(self, database: Database, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def delete(self, job_id: str, *, caller: Caller) -> None:
        """Delete a job of the caller's with all that belongs to it.

        Its idempotency keys are forgotten along with it: the next request with one of them makes a new job.

        Raises:
            NotFound: There is no such job, or no longer.
            Conflict: A worker has the job.
        """
        with self._database.write() as connection:
            removal = RemovalRepository(connection)
            found = removal.find(job_id, owner=caller.owner)
            if found is None:
                raise NotFound("job_not_found", "there is no such job")
            if not removal.remove([found]):
                raise Conflict("still_running", "a worker has the job; cancel it, and delete it when it has ended")
            AuditRepository(connection).record(Action.JOB_DELETED, caller.owner, caller.key_id, found)
        _log.info("job.deleted", job_id=found)
        self.drop_files([found])

    def drop_files(self, job_ids: Sequence[str]) -> None:
        """Delete the files of deleted jobs, as far as the store takes it now."""
        for job_id in job_ids:
            try:
                self._store.delete_prefix(f"jobs/{job_id}")
            except (OSError, StoreUnavailable) as error:
                _log.warning("job.files_left", job_id=job_id, reason=first_line(error))
