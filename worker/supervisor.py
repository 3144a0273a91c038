"""Supervision of one job: claim, child process, lease, and the one guarded commit. Never imports torch."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import Claim, JobError, artifact_key
from app.settings import Settings
from app.storage import ArtifactStore, StoredArtifact
from pruning_core.report import Report
from worker.child import CHILD_COMMAND, Child
from worker.lease import Lease
from worker.memory import OomWatch
from worker.protocol import ChildError, ChildRequest, ExitCode, Scratch

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.1
# A result that is computed is worth waiting for; after so long the lease is long gone and the fence decides anyway.
_LONGEST_OUTAGE_S = 3600


class _Stop(Enum):
    """Why a child was stopped."""

    LEASE_LOST = auto()
    CANCELLED = auto()
    TIMEOUT = auto()
    SHUTDOWN = auto()


class Supervisor:
    """Runs due jobs, one at a time.

    Args:
        settings: Lease, heartbeat, limits, folders.
        database: Where the truth is.
        store: Where bundles go.
        worker: Name of this worker in the database.
        stopping: Says whether the worker is shutting down.
        command: What the child runs.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        *,
        worker: str,
        stopping: Callable[[], bool],
        command: Sequence[str] = CHILD_COMMAND,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._worker = worker
        self._stopping = stopping
        self._command = command

    def run_next(self) -> bool:
        """Claim the due job and bring it to its end, or give it back. False where nothing is due."""
        if self._stopping():
            return False
        with self._database.write() as connection:
            claim = LeaseRepository(connection).claim(worker=self._worker, lease_s=self._settings.lease_s)
        if claim is None:
            return False
        with structlog.contextvars.bound_contextvars(job_id=claim.job_id, fence=claim.fence):
            _log.info("job.claimed", attempt=claim.attempt)
            folder = self._settings.resolved_scratch_dir.resolve() / f"{claim.job_id}.{claim.fence}"
            try:
                self._attempt(claim, Scratch(folder))
            except (OSError, ValidationError) as error:
                # No space for scratch or store, a report that does not parse: the next attempt may fare better, or not.
                _log.exception("job.attempt_failed")
                reason = "the worker could not keep the job's files; its operator finds the reason in the log"
                code = "storage_full" if isinstance(error, OSError) and error.errno == errno.ENOSPC else "worker_failed"
                self._count_crash(claim, JobError(code, reason))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return True

    def _attempt(self, claim: Claim, scratch: Scratch) -> None:
        shutil.rmtree(scratch.folder, ignore_errors=True)
        scratch.folder.mkdir(parents=True)
        request = ChildRequest(
            spec=claim.spec,
            device=self._settings.device or None,
            threads=self._settings.threads,
            cache=self._settings.data_dir.resolve() / "cache",
        )
        scratch.request.write_text(request.model_dump_json(), encoding="utf-8")
        oom_watch = OomWatch()
        with Lease(self._settings, self._database, claim) as lease:
            child = Child(self._command, scratch.folder, lease.progress)
            outcome = self._watch(child, lease)
            if isinstance(outcome, _Stop):
                self._stopped(claim, outcome)
            elif outcome == ExitCode.SUCCEEDED and scratch.report.is_file():
                self._publish(claim, scratch, lease)
            elif outcome == ExitCode.FAILED and scratch.error.is_file():
                self._failed(claim, ChildError.model_validate_json(scratch.error.read_text(encoding="utf-8")))
            else:
                self._crashed(claim, outcome, out_of_memory=oom_watch.fired())

    def _watch(self, child: Child, lease: Lease) -> int | _Stop:
        """Wait for the child, or for a reason to stop it. Either way the child is gone when this returns."""
        deadline = time.monotonic() + self._settings.job_timeout_s
        while (code := child.wait(_LOOK_EVERY_S)) is None:
            reason = self._reason_to_stop(lease, deadline)
            if reason is not None:
                _log.info("job.stopping", reason=reason.name.lower())
                child.stop(0 if reason is _Stop.LEASE_LOST else self._settings.kill_grace_s)
                return reason
        child.close()
        return code

    def _reason_to_stop(self, lease: Lease, deadline: float) -> _Stop | None:
        if lease.lost.is_set():
            return _Stop.LEASE_LOST
        if lease.cancelled.is_set():
            return _Stop.CANCELLED
        if time.monotonic() > deadline:
            return _Stop.TIMEOUT
        return _Stop.SHUTDOWN if self._stopping() else None

    def _stopped(self, claim: Claim, reason: _Stop) -> None:
        if reason is _Stop.LEASE_LOST:
            _log.warning("job.lease_lost")
        elif reason is _Stop.CANCELLED:
            self._commit(lambda leases: leases.cancelled(claim.job_id, claim.fence))
        elif reason is _Stop.SHUTDOWN:
            self._commit(lambda leases: leases.release(claim.job_id, claim.fence))
        else:
            limit = self._settings.job_timeout_s
            error = JobError("timeout", f"the job ran longer than the {limit:g} s that this server allows")
            self._commit(lambda leases: leases.fail(claim.job_id, claim.fence, error=error))

    def _publish(self, claim: Claim, scratch: Scratch, lease: Lease) -> None:
        """Store every file under the fence, then make them visible in one transaction."""
        report = Report.model_validate_json(scratch.report.read_text(encoding="utf-8"))
        stored: list[StoredArtifact] = []
        for path in sorted(path for path in scratch.bundle.rglob("*") if path.is_file()):
            if lease.lost.is_set():
                _log.warning("job.lease_lost")
                return
            name = path.relative_to(scratch.bundle).as_posix()
            size, sha256 = self._store.put(artifact_key(claim.job_id, claim.fence, name), path)
            stored.append(StoredArtifact(name, size, sha256))
        done = self._commit(lambda leases: leases.succeed(claim.job_id, claim.fence, report=report, artifacts=stored))
        _log.info("job.succeeded" if done else "job.result_refused", files=len(stored))

    def _failed(self, claim: Claim, failure: ChildError) -> None:
        error = JobError(failure.code, failure.message, failure.param)
        _log.info("job.failed", code=error.code)
        if failure.transient:
            self._count_crash(claim, error)
        else:
            self._commit(lambda leases: leases.fail(claim.job_id, claim.fence, error=error))

    def _crashed(self, claim: Claim, code: int, *, out_of_memory: bool) -> None:
        _log.warning("job.crashed", exit_code=code, out_of_memory=out_of_memory)
        if out_of_memory:
            error = JobError("oom", "the job's process ran out of memory; lower calibration.samples or batch_tokens")
        else:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            error = JobError("crashed", f"the job's process ended {how}")
        self._count_crash(claim, error)

    def _count_crash(self, claim: Claim, error: JobError) -> None:
        cap = self._settings.max_attempts
        self._commit(lambda leases: leases.crashed(claim.job_id, claim.fence, error=error, max_attempts=cap))

    def _commit(self, statement: Callable[[LeaseRepository], bool]) -> bool:
        """Run one guarded transition in a transaction, through outages of the database."""

        def once() -> bool:
            with self._database.write() as connection:
                return statement(LeaseRepository(connection))

        return Retrying(
            retry=retry_if_exception_type((OperationalError, InterfaceError, PoolTimeout)),
            wait=wait_exponential(multiplier=0.2, max=5),
            stop=stop_after_delay(_LONGEST_OUTAGE_S),
            reraise=True,
        )(once)
