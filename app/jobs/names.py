"""Names under which requests for jobs come again: idempotency keys, and ids that clients choose."""

from __future__ import annotations

from dataclasses import dataclass

from app.jobs.records import Job
from app.jobs.repository import JobRepository
from app.jobs.schemas import JobCreate
from app.keys.records import Caller


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a job, and the name under which it may come again."""

    request: JobCreate
    digest: str
    caller: Caller
    idempotency_key: str | None = None
    client_id: str | None = None
    calibrates: bool = False

    @property
    def scope(self) -> str:
        """The scope of idempotency keys: the API key. Two pipelines of a tenant may well count their runs alike."""
        return self.caller.key_id


def named(repository: JobRepository, asked: Asked) -> tuple[Job, str | None] | None:
    """Find the job that goes by the name of a request, and the digest of the request that made it."""
    owner = asked.caller.owner
    if asked.client_id is not None:
        job = repository.get(asked.client_id, owner=owner)
        return None if job is None else (job, job.body_sha256)
    if asked.idempotency_key is None:
        return None
    found = repository.find_key(asked.scope, asked.idempotency_key)
    if found is None:
        return None
    digest, job_id = found
    return repository.known(job_id, owner=owner), digest
