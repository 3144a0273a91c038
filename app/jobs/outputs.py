"""What jobs' processes have printed, and when their stages began: a bounded text for each attempt, for the job's owner."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from app.db import Database, now
from app.jobs import models
from app.jobs.repository import JobRepository

MOST_CHARACTERS = 65_536  # of one attempt; what came first is let go
_MOST_ATTEMPTS = 3  # of one job whose output is kept, the last ones

_jobs, _outputs = models.jobs, models.job_outputs


@dataclass(frozen=True, slots=True)
class AttemptOutput:
    """The output of one attempt."""

    attempt: int
    text: str


class OutputRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def write(self, job_id: str, fence: int, output: AttemptOutput) -> bool:
        """Put down what an attempt has printed so far, in place of what was there. False: the job is another's by now."""
        held = sa.select(_jobs.c.id).where(_jobs.c.id == job_id, _jobs.c.fence == fence).with_for_update()
        if self._connection.execute(held).one_or_none() is None:
            return False
        of_job = _outputs.c.job_id == job_id
        stale = sa.or_(_outputs.c.attempt == output.attempt, _outputs.c.attempt <= output.attempt - _MOST_ATTEMPTS)
        self._connection.execute(_outputs.delete().where(of_job, stale))
        row = {"job_id": job_id, "attempt": output.attempt, "text": output.text[-MOST_CHARACTERS:]}
        self._connection.execute(_outputs.insert().values(**row, written_at=now()))
        return True

    def read(self, job_id: str) -> list[AttemptOutput]:
        """Read what the last attempts have printed, the oldest first."""
        query = sa.select(_outputs).where(_outputs.c.job_id == job_id).order_by(_outputs.c.attempt)
        return [AttemptOutput(row.attempt, row.text) for row in self._connection.execute(query)]


class JobOutputs:
    """Use cases of outputs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, job_id: str, *, owner: str) -> list[AttemptOutput]:
        """Read what an owner's job has printed. Raises `NotFound`."""
        with self._database.read() as connection:
            job = JobRepository(connection).known(job_id, owner=owner)
            return OutputRepository(connection).read(job.id)
