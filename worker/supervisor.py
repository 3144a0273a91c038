"""Supervision of one job: claim, child process, lease, and the one guarded commit. Never imports torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import assert_never

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from app.db import OUTAGES, Database
from app.jobs.control import ControlRepository
from app.jobs.leases import LeaseRepository
from app.jobs.limits import NO_LIMITS
from app.jobs.needs import Abilities
from app.jobs.records import Claim, JobError, is_calibration
from app.jobs.states import JobStatus
from app.jobs.upkeep import UpkeepRepository
from app.logs import first_line
from app.settings import Settings
from app.storage import ArtifactStore, StoredArtifact, StoreUnavailable
from app.tracing import AttemptTrace, Tracing, attempt_traced, note_failure
from app.uploads.service import UploadService
from pruning_core.errors import PruningError
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from worker.allowance import Allowance
from worker.child import CHILD_COMMAND, FETCH_COMMAND, Child
from worker.failures import failure_of
from worker.inputs import uploads_here
from worker.kept import statistics_of
from worker.launching import Launching
from worker.lease import Lease
from worker.memory import OomWatch
from worker.output import Output
from worker.pieces import Pieces
from worker.protocol import ChildError, ChildExit, Scratch
from worker.publication import store_bundle
from worker.results import ending_of
from worker.scratch import Attempt, ScratchRoom
from worker.signing import BundleSigner
from worker.stops import Stop

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.1
# Each beginning of a stage is a row in the database; a job has some for each of its targets.
_MOST_STAGES = 2000
# A computed result is worth waiting for, but no longer than this: by then the lease is long lost, and the fence decides.
_LONGEST_OUTAGE_S = 3600


class Supervisor:
    """Runs due jobs, one at a time.

    Args:
        settings: Lease, heartbeat, limits, folders.
        database: The database of jobs.
        store: The artifact store, for bundles.
        worker: Name of this worker in the database.
        stopping: Returns whether the worker is shutting down.
        command: Command of the child process.
        tracing: Tracing of attempts; None where nothing is traced.
        abilities: What the worker serves; None: everything.
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
        tracing: Tracing | None = None,
        abilities: Abilities | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._worker = worker
        self._stopping = stopping
        self._command = command
        self._tracing = tracing
        self._abilities = abilities
        self._room = ScratchRoom(settings.resolved_scratch_dir)
        self._signer = BundleSigner(settings)
        self._uploads = UploadService(settings, database, store)
        self._pieces = Pieces(settings, database, store)
        self._allowance = Allowance(settings, NO_LIMITS)  # of the job at hand

    def run_next(self) -> bool:
        """Claim the due job and run it to its end, or give it back. Return False where nothing is due or can be done."""
        if self._stopping() or not self._has_room():
            return False
        settings = self._settings
        with self._database.write() as connection:
            if not ControlRepository(connection).may_claim():
                return False
            claim = LeaseRepository(connection).claim(
                worker=self._worker,
                lease_s=settings.lease_s,
                max_running=settings.max_running_jobs,
                abilities=self._abilities,
            )
        if claim is None:
            return False
        self._allowance = Allowance(settings, claim.limits)
        with (
            structlog.contextvars.bound_contextvars(job_id=claim.job_id, fence=claim.fence),
            _traced(self._tracing, claim) as trace,
        ):
            _log.info("job.claimed", attempt=claim.attempt)
            try:
                with self._room.begin(claim.job_id, claim.fence) as attempt:
                    self._attempt(claim, attempt, trace)
            except OUTAGES:
                raise
            except Exception as error:
                # No space for scratch or store, or no report that can be read: another attempt may succeed, so count a crash.
                # Or what no store or database takes, and nobody has thought of: it must not end this worker's turn.
                _log.exception("job.attempt_failed")
                self._count_crash(claim, failure_of(error))
        return True

    def _has_room(self) -> bool:
        """Leave jobs to others, or for later, rather than fail them one after the other on a full disk."""
        try:
            free = self._room.free_bytes()
        except OSError as error:
            _log.error("worker.scratch_unusable", reason=first_line(error))
            return False
        if free < self._settings.min_free_bytes:
            _log.error("worker.scratch_full", free_bytes=free, needed_bytes=self._settings.min_free_bytes)
        return free >= self._settings.min_free_bytes

    def _attempt(self, claim: Claim, attempt: Attempt, trace: AttemptTrace) -> None:
        scratch = Scratch(attempt.folder)
        oom_watch, started = OomWatch(), time.time()
        output = Output(self._database, claim, self._settings.allowed_roots)
        with Lease(self._settings, self._database, claim) as lease, output:
            output.say(f"attempt {claim.attempt} begins")
            begun: list[str] = []

            def told(progress: Progress) -> None:
                if not begun or begun[-1] != progress.stage:
                    if len(begun) >= _MOST_STAGES:
                        return
                    begun.append(progress.stage)
                    output.say(f"stage {progress.stage}")
                trace.stage(progress.stage)
                lease.progress(progress)

            try:
                with uploads_here(claim, self._uploads, self._settings, lambda: self._must_stop(lease)) as here:
                    folder = statistics_of(self._settings, here, scratch.folder)
                    notes = self._pieces.fetch(here, folder, lambda: self._must_stop(lease))
                    outcome = self._processes(Launching(self._settings, here, scratch, notes), scratch, lease, told, output)
            except InterruptedError:
                reason = self._reason_to_stop(lease)
                assert reason is not None, "only a reason to stop interrupts the fetching, and none of them passes"
                outcome = reason
            except PruningError as error:
                self._give_up(claim, lease, JobError(error.code, error.message, error.param))
                return
            output.say(f"ended: {outcome.said if isinstance(outcome, Stop) else f'exit code {outcome}'}")
            if isinstance(outcome, Stop):
                self._stopped(claim, outcome)
                return
            ending = scratch.ending(outcome)
            match ending:
                case ChildExit.SUCCEEDED:
                    self._succeeded(claim, scratch, lease, started)
                case ChildExit.FAILED:
                    self._failed(claim, scratch, lease)
                case None:
                    self._crashed(claim, outcome, out_of_memory=oom_watch.fired())
                case _:
                    assert_never(ending)

    def _processes(
        self, launching: Launching, scratch: Scratch, lease: Lease, told: Callable[[Progress], None], output: Output
    ) -> int | Stop:
        """Fetch what the job needs, and run it. Return how the last of these processes ended, or why it was stopped."""
        fetch = launching.fetch()
        if fetch is not None:
            limit_s = self._allowance.left_s(self._settings.hub_timeout_s)
            outcome = self._watch(Child(FETCH_COMMAND, scratch.folder, fetch, told, output.printed), lease, limit_s)
            if outcome is Stop.TIMEOUT:
                return Stop.FETCH_TIMEOUT
            if outcome != ChildExit.SUCCEEDED:
                return outcome
        limit_s = self._allowance.left_s(self._settings.job_timeout_s)
        return self._watch(Child(self._command, scratch.folder, launching.job(), told, output.printed), lease, limit_s)

    def _watch(self, child: Child, lease: Lease, limit_s: float) -> int | Stop:
        """Wait for the child, or for a reason to stop it. Either way the child is gone when this returns."""
        deadline = time.monotonic() + limit_s
        while (code := child.wait(_LOOK_EVERY_S)) is None:
            reason = self._reason_to_stop(lease, deadline)
            if reason is not None:
                _log.info("job.stopping", reason=reason.name.lower())
                child.stop(0 if reason is Stop.LEASE_LOST else self._settings.kill_grace_s)
                return reason
        child.close()
        return code

    def _must_stop(self, lease: Lease) -> bool:
        return self._reason_to_stop(lease) is not None

    def _reason_to_stop(self, lease: Lease, deadline: float = math.inf) -> Stop | None:
        if lease.lost.is_set():
            return Stop.LEASE_LOST
        if lease.cancelled.is_set():
            return Stop.CANCELLED
        if time.monotonic() > deadline:
            return Stop.TIMEOUT
        return Stop.SHUTDOWN if self._stopping() else None

    def _stopped(self, claim: Claim, reason: Stop) -> None:
        match reason:
            case Stop.LEASE_LOST:
                _log.warning("job.lease_lost")
            case Stop.CANCELLED:
                self._commit(lambda leases: leases.confirm_cancelled(claim.job_id, claim.fence))
            case Stop.TIMEOUT:
                self._out_of_time(claim, "the job ran longer than", self._settings.job_timeout_s)
            case Stop.FETCH_TIMEOUT:
                self._out_of_time(claim, "model and data set were not fetched from the Hub in", self._settings.hub_timeout_s)
            case Stop.SHUTDOWN:
                self._commit(lambda leases: leases.release(claim.job_id, claim.fence))
            case _:
                assert_never(reason)

    def _out_of_time(self, claim: Claim, said: str, most_s: float) -> None:
        error = self._allowance.exceeded(said, most_s)
        note_failure(error.code, error.message)
        self._commit(lambda leases: leases.fail(claim.job_id, claim.fence, error=error))

    def _succeeded(self, claim: Claim, scratch: Scratch, lease: Lease, started: float) -> None:
        end = ending_of(claim, scratch, self._settings, self._signer, started=started)
        stored = self._store_bundle(claim, scratch, lease)
        became = self._publish(claim, lease, stored, end)
        if stored is not None:
            _log.info("job.succeeded" if became is JobStatus.SUCCEEDED else "job.result_refused", files=len(stored))

    def _failed(self, claim: Claim, scratch: Scratch, lease: Lease) -> None:
        failure = ChildError.model_validate_json(scratch.read(scratch.error))
        error = JobError(failure.code, failure.message, failure.param)
        if failure.transient:
            _log.info("job.failed", code=error.code)
            self._count_crash(claim, error)
            return
        report, stored = (
            (_report_in(scratch), self._store_candidate(claim, scratch, lease)) if scratch.has_result else (None, ())
        )
        self._give_up(claim, lease, error, report, stored)

    def _give_up(
        self,
        claim: Claim,
        lease: Lease,
        error: JobError,
        report: Report | None = None,
        stored: Sequence[StoredArtifact] | None = (),
    ) -> None:
        """Fail a job for good, with what it leaves to look at."""
        _log.info("job.failed", code=error.code)
        note_failure(error.code, error.message)
        keep_s = self._settings.artifacts_keep_s
        self._publish(
            claim,
            lease,
            stored,
            lambda leases, files: leases.fail(
                claim.job_id, claim.fence, error=error, report=report, artifacts=files, keep_s=keep_s
            ),
        )

    def _publish(
        self,
        claim: Claim,
        lease: Lease,
        stored: Sequence[StoredArtifact] | None,
        end: Callable[[LeaseRepository, Sequence[StoredArtifact]], JobStatus | None],
    ) -> JobStatus | None:
        """Make what is stored under the fence visible in the transaction that ends the job, or delete it.

        Args:
            claim: The claim under whose fence the files are stored.
            lease: The lease, which knows why storing was interrupted, if it was.
            stored: The stored files; None where storing was interrupted.
            end: Ends the job with the files.

        Returns:
            The new status of the job; None where the fence was stale or the storing interrupted.
        """
        if stored is None:
            reason = self._reason_to_stop(lease)
            assert reason is not None, "only a reason to stop interrupts the storing, and none of them passes"
            self._stopped(claim, reason)
            self._withdraw(claim)
            return None
        became = self._commit(lambda leases: end(leases, stored))
        if became is None or became is JobStatus.CANCELLED or (became is JobStatus.FAILED and is_calibration(claim.job_id)):
            self._withdraw(claim)
        return became

    def _store_bundle(self, claim: Claim, scratch: Scratch, lease: Lease) -> Sequence[StoredArtifact] | None:
        try:
            return store_bundle(
                self._store,
                claim,
                scratch.bundle,
                most_bytes=self._settings.bundle_max_bytes,
                wait_s=self._settings.storage_wait_s,
                interrupted=lambda: lease.lost.is_set() or lease.cancelled.is_set(),
                stopping=self._stopping,
            )
        except (OSError, StoreUnavailable):
            self._withdraw(claim)
            raise

    def _store_candidate(self, claim: Claim, scratch: Scratch, lease: Lease) -> Sequence[StoredArtifact] | None:
        """Store what a failed job leaves to look at. Its error matters more: without room for the files it stands alone."""
        try:
            return self._store_bundle(claim, scratch, lease)
        except (OSError, StoreUnavailable) as error:
            _log.error("job.candidate_dropped", reason=first_line(error))
            return ()

    def _withdraw(self, claim: Claim) -> None:
        """Delete the files of an attempt that did not publish them; where that fails, the reaper does it later."""
        try:
            with self._database.read() as connection:
                # A commit whose confirmation was lost may have published the files after all.
                live = UpkeepRepository(connection).live_fences([claim.job_id])[claim.job_id]
            if claim.fence not in live:
                self._store.delete_prefix(f"jobs/{claim.job_id}/{claim.fence}")
        except (*OUTAGES, OSError, StoreUnavailable) as error:
            _log.warning("job.files_left", reason=first_line(error))

    def _crashed(self, claim: Claim, code: int, *, out_of_memory: bool) -> None:
        _log.warning("job.crashed", exit_code=code, out_of_memory=out_of_memory)
        if out_of_memory:
            error = JobError("oom", "the job's process ran out of memory; lower calibration.samples or batch_tokens")
        else:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            error = JobError("crashed", f"the job's process ended {how}")
        self._count_crash(claim, error)

    def _count_crash(self, claim: Claim, error: JobError) -> None:
        most, pause_s = self._allowance.max_attempts, self._settings.crash_pause_s
        note_failure(error.code, error.message)
        self._commit(lambda leases: leases.crashed(claim.job_id, claim.fence, error=error, max_attempts=most, pause_s=pause_s))

    def _commit(self, transition: Callable[[LeaseRepository], JobStatus | None]) -> JobStatus | None:
        """Run one guarded transition in a transaction, through outages of the database.

        Returns:
            The new status of the job; None where the fence is stale.
        """

        def once() -> JobStatus | None:
            with self._database.write() as connection:
                return transition(LeaseRepository(connection))

        def given_up(state: RetryCallState) -> bool:
            # A worker that must stop gives up early and leaves the job to the reaper, before it is killed.
            patience_s = self._settings.kill_grace_s if self._stopping() else _LONGEST_OUTAGE_S
            return (state.seconds_since_start or 0) > patience_s

        return Retrying(
            retry=retry_if_exception_type(OUTAGES), wait=wait_exponential(multiplier=0.2, max=5), stop=given_up, reraise=True
        )(once)


def _traced(tracing: Tracing | None, claim: Claim) -> AbstractContextManager[AttemptTrace]:
    attributes = {
        "coppice.job_id": claim.job_id,
        "coppice.attempt": claim.attempt,
        "coppice.method": claim.spec.method.name,
        "coppice.task": claim.spec.task.name or claim.spec.task.type,
    }
    return attempt_traced(tracing, f"job {claim.spec.method.name}", claim.traceparent, attributes)


def _report_in(scratch: Scratch) -> Report:
    return Report.model_validate_json(scratch.read(scratch.report))
