"""Job leases: claim, renew, finish, release. Every statement is guarded by fence and state.

The promise of the job protocol rests on this file: a claim is a compare-and-set that raises the fence, and every later
statement names its fence, so that whoever has lost the lease affects no row. Only the database's clock is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from app.db import now
from app.jobs import models
from app.jobs.calibrations import CalibrationRepository
from app.jobs.limits import JobLimits
from app.jobs.line import LineRepository, pool_of
from app.jobs.needs import Abilities
from app.jobs.records import Claim, EventType, Heartbeat, JobError
from app.jobs.repository import add_event, move
from app.jobs.states import ACTIVE, JobStatus, Transition
from app.storage import StoredArtifact
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.report.statistics import StatisticsReport
from pruning_core.spec.prune import PruneSpec

_jobs, _artifacts = models.jobs, models.artifacts

UNREADABLE = JobError("spec_unreadable", "the job was written by another version of the service; submit it again")


class LeaseRepository:
    """Guarded statements within one write transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def claim(
        self, *, worker: str, lease_s: float, max_running: int | None = None, abilities: Abilities | None = None
    ) -> Claim | None:
        """Claim the due job whose turn it is (`app.jobs.fairness`): of its tenant that of highest priority, the oldest first.

        It need not be the one that a message named: a message only says that there is work.

        Args:
            worker: Name of the worker that claims.
            lease_s: Seconds until the lease expires, unless it is renewed.
            max_running: Largest number of jobs of one owner that may run at once, where the owner has no limit of its own;
                None: any number.
            abilities: What the worker serves; None: everything.
        """
        line = LineRepository(self._connection)
        line.begin_turn()
        while True:
            turn = next(line.in_turn(abilities, max_running), None)
            if turn is None or (claim := self._claim(turn.row, worker, lease_s)) is None:
                return None
            if isinstance(claim, Claim):
                line.take(turn, pool_of(abilities))
                return claim

    def _claim(self, row: sa.Row[Any], worker: str, lease_s: float) -> Claim | JobStatus | None:
        """Claim one job by compare-and-set. Return its status where it cannot be read, and None where it was not there."""
        claimed = move(
            self._connection,
            row.id,
            Transition.CLAIM,
            ~_jobs.c.cancel_requested,
            _jobs.c.fence == row.fence,
            fence=_jobs.c.fence + 1,
            attempt=_jobs.c.attempt + 1,
            worker=worker,
            lease_until=now() + lease_s,
            progress=None,
            started_at=now(),
        )
        if not claimed:
            return None
        try:
            spec = PruneSpec.model_validate(row.spec)
        except ValidationError:
            # Another version wrote this spec. The job must not block those behind it in the queue.
            return self.fail(row.id, row.fence + 1, error=UNREADABLE)
        claim = Claim(
            row.id,
            row.fence + 1,
            row.attempt + 1,
            spec,
            row.traceparent,
            row.owner,
            JobLimits(row.max_attempts, row.timeout_s),
            row.calibration,
            row.name,
        )
        add_event(self._connection, claim.job_id, EventType.STARTED, {"attempt": claim.attempt})
        return claim

    def heartbeat(self, job_id: str, fence: int, *, lease_s: float, progress: Progress | None) -> Heartbeat | None:
        """Renew the lease and write progress. Return None where the lease is lost."""
        values: dict[str, Any] = {"lease_until": now() + lease_s}
        if progress is not None:
            written = progress.model_dump(mode="json")
            values |= {"progress": written, "progress_at": now(), "version": _jobs.c.version + 1}
        statement = (
            _jobs.update()
            .where(_jobs.c.id == job_id, _jobs.c.fence == fence, _jobs.c.status.in_(sorted(ACTIVE)))
            .values(**values)
            .returning(_jobs.c.cancel_requested)
        )
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else Heartbeat(row.cancel_requested)

    def stage_begun(self, job_id: str, fence: int, progress: Progress) -> None:
        """Append the beginning of a stage to the event log. Do nothing where the lease is lost."""
        held = sa.select(_jobs.c.id).where(_jobs.c.id == job_id, _jobs.c.fence == fence, _jobs.c.status.in_(sorted(ACTIVE)))
        if self._connection.execute(held).one_or_none() is not None:
            add_event(
                self._connection,
                job_id,
                EventType.STAGE,
                {"stage": progress.stage, "fraction": round(progress.fraction, 4)},
            )

    def succeed(
        self,
        job_id: str,
        fence: int,
        *,
        report: Report,
        artifacts: Sequence[StoredArtifact],
        keep_s: float | None = None,
    ) -> JobStatus | None:
        """Publish a result: artifact rows, report, state and event, all or nothing. A request to cancel comes too late for it.

        Args:
            job_id: The job.
            fence: Fence of the claim.
            report: The report on the bundle.
            artifacts: Files that the store holds under the fence.
            keep_s: Seconds until the artifacts expire; None: they never do.

        Returns:
            The new status of the job; None where the fence is stale.
        """
        expiry = _expiry(artifacts, keep_s)
        if not self._finish(job_id, fence, Transition.SUCCEED, report=report.model_dump(mode="json"), expires_at=expiry):
            return None
        self._publish(job_id, fence, artifacts)
        add_event(
            self._connection,
            job_id,
            EventType.SUCCEEDED,
            {"target": report.target.model_dump(), "quality": report.quality.model_dump()},
        )
        return JobStatus.SUCCEEDED

    def keep(
        self,
        job_id: str,
        fence: int,
        *,
        found: StatisticsReport,
        pieces: Sequence[StoredArtifact],
        most_bytes: int | None = None,
        keep_s: float | None = None,
    ) -> JobStatus | None:
        """Publish a calibration: its pieces, state and event, all or nothing. What was least recently used makes room.

        Args:
            job_id: The calibration.
            fence: Fence of the claim.
            found: What was gathered.
            pieces: Files that the store holds under the fence.
            most_bytes: How many bytes the pieces of its owner may have; None: any number.
            keep_s: Seconds until the pieces expire; None: they never do.

        Returns:
            The new status of the job: failed where there is no room for it; None where the fence is stale.
        """
        calibrations, size = CalibrationRepository(self._connection), sum(piece.size for piece in pieces)
        if not calibrations.make_room_for(job_id, size, most_bytes=most_bytes):
            said = (
                f"the pieces have {size} bytes, and those of a tenant may have {most_bytes} (COPPICE_CALIBRATIONS_BYTES), "
                "of which jobs that have not ended may need some; lower calibration.memory_mb or evaluation.max_samples, "
                "delete a calibration, or wait for these jobs"
            )
            return self.fail(job_id, fence, error=JobError("calibration_too_large", said, "calibration.memory_mb"))
        if not self._finish(job_id, fence, Transition.SUCCEED, expires_at=_expiry(pieces, keep_s)):
            return None
        self._publish(job_id, fence, pieces)
        calibrations.kept(job_id, found)
        add_event(self._connection, job_id, EventType.SUCCEEDED, {"pieces": len(pieces), "bytes": size})
        return JobStatus.SUCCEEDED

    def fail(
        self,
        job_id: str,
        fence: int,
        *,
        error: JobError,
        report: Report | None = None,
        artifacts: Sequence[StoredArtifact] = (),
        keep_s: float | None = None,
    ) -> JobStatus | None:
        """End a job with an error, or as cancelled where somebody has asked for that.

        A job that missed its target or its quality floor still publishes its best candidate and the report on it.

        Returns:
            The new status of the job; None where the fence is stale. Only a failed job has published its files.
        """
        if self._finish(
            job_id,
            fence,
            Transition.FAIL,
            error=asdict(error),
            report=None if report is None else report.model_dump(mode="json"),
            expires_at=_expiry(artifacts, keep_s),
        ):
            self._publish(job_id, fence, artifacts)
            add_event(self._connection, job_id, EventType.FAILED, asdict(error))
            return JobStatus.FAILED
        return self.confirm_cancelled(job_id, fence)

    def confirm_cancelled(self, job_id: str, fence: int) -> JobStatus | None:
        """End a job whose cancellation was asked for, once its process is gone.

        Every attempt that ends without success comes here at last, so that such a job cannot end in another way.

        Returns:
            The new status of the job; None where the fence is stale, or nobody has asked for a cancellation.
        """
        if not self._finish(job_id, fence, Transition.CONFIRM_CANCEL):
            return None
        add_event(self._connection, job_id, EventType.CANCELLED, {})
        return JobStatus.CANCELLED

    def release(self, job_id: str, fence: int) -> JobStatus | None:
        """Return a job to the queue without charging the attempt, because the worker is shutting down."""
        return self._requeue(job_id, fence, "worker_shutdown", attempt=_jobs.c.attempt - 1)

    def lost(self, job_id: str, fence: int, *, error: JobError, max_attempts: int) -> JobStatus | None:
        """Take a job from a worker whose lease has run out: queue it again, or end it with the error at the cap.

        Args:
            job_id: The job.
            fence: Fence of the lost claim.
            error: The job's error if it has reached the cap.
            max_attempts: The cap: this many losses end the job.
        """
        losses = self._count(job_id, fence, _jobs.c.losses)
        if losses is None:
            return None
        if losses + 1 >= max_attempts:
            return self.fail(job_id, fence, error=error)
        return self._requeue(job_id, fence, "lease_expired", losses=_jobs.c.losses + 1)

    def crashed(self, job_id: str, fence: int, *, error: JobError, max_attempts: int, pause_s: float = 0) -> JobStatus | None:
        """Note that a job's process died: queue it again, or end it with the error once it has crashed too often.

        Args:
            job_id: The job.
            fence: Fence of the claim.
            error: The job's error if it has reached the cap.
            max_attempts: The cap: this many crashes end the job.
            pause_s: Seconds before the next attempt, doubled with each crash: memory that was short may still be short.
        """
        crashes = self._count(job_id, fence, _jobs.c.crashes)
        if crashes is None:
            return None
        if crashes + 1 >= max_attempts:
            return self.fail(job_id, fence, error=error)
        due = now() + pause_s * 2**crashes
        return self._requeue(job_id, fence, error.code, crashes=_jobs.c.crashes + 1, not_before=due)

    def _requeue(self, job_id: str, fence: int, reason: str, **values: Any) -> JobStatus | None:
        """Put a running job back into the queue, with changes to its counters."""
        if move(
            self._connection,
            job_id,
            Transition.REQUEUE,
            _jobs.c.fence == fence,
            lease_until=None,
            worker=None,
            progress=None,
            published_at=None,
            publish_count=0,
            **values,
        ):
            add_event(self._connection, job_id, EventType.REQUEUED, {"reason": reason})
            return JobStatus.QUEUED
        return self.confirm_cancelled(job_id, fence)

    def _publish(self, job_id: str, fence: int, artifacts: Sequence[StoredArtifact]) -> None:
        if artifacts:
            rows = [{"job_id": job_id, "fence": fence, **asdict(artifact)} for artifact in artifacts]
            self._connection.execute(_artifacts.insert(), rows)

    def _finish(self, job_id: str, fence: int, transition: Transition, **values: Any) -> bool:
        return move(
            self._connection,
            job_id,
            transition,
            _jobs.c.fence == fence,
            lease_until=None,
            finished_at=now(),
            **values,
        )

    def _count(self, job_id: str, fence: int, column: sa.ColumnElement[int]) -> int | None:
        held = sa.select(column).where(_jobs.c.id == job_id, _jobs.c.fence == fence, _jobs.c.status.in_(sorted(ACTIVE)))
        return self._connection.scalar(held.with_for_update())


def _expiry(artifacts: Sequence[StoredArtifact], keep_s: float | None) -> sa.ColumnElement[float] | None:
    return now() + keep_s if artifacts and keep_s is not None else None
