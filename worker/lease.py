"""The lease of a running job. A thread renews it, writes the newest progress, and listens for a cancellation."""

from __future__ import annotations

import contextvars
import threading
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import Claim
from app.logs import first_line
from app.settings import Settings
from pruning_core.report.progress import Progress

_log = structlog.get_logger(__name__)

# The shortest time between two writes of progress; without progress, the lease is renewed less often.
_PROGRESS_EVERY_S = 1.0


class Lease:
    """The lease of one claim, held while the context is open.

    Attributes:
        lost: Set once the database says that the job is no longer ours.
        cancelled: Set once somebody has asked for a cancellation.
    """

    def __init__(self, settings: Settings, database: Database, claim: Claim) -> None:
        self.lost = threading.Event()
        self.cancelled = threading.Event()
        self._settings = settings
        self._database = database
        self._claim = claim
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._unwritten: Progress | None = None
        self._begun: list[Progress] = []
        self._stage: str | None = None
        # The thread's log lines then have the job's id, which is bound to the present context.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._renew,), name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()

    def progress(self, progress: Progress) -> None:
        """Note where the job is; written with the next heartbeat."""
        with self._lock:
            self._unwritten = progress
            if progress.stage != self._stage:
                self._stage = progress.stage
                self._begun.append(progress)

    def _renew(self) -> None:
        interval = min(_PROGRESS_EVERY_S, self._settings.heartbeat_s)
        since_beat = 0.0
        while not self._closing.wait(interval) and not self.lost.is_set():
            since_beat += interval
            if self._unwritten is None and since_beat < self._settings.heartbeat_s:
                continue
            since_beat = 0.0
            with self._lock:
                progress, self._unwritten = self._unwritten, None
                begun, self._begun = self._begun, []
            try:
                self._beat(progress, begun)
            except SQLAlchemyError as error:
                # The job goes on through an outage. If the lease has run out by its end, the fence stops every write.
                _log.warning("lease.renewal_failed", error=type(error).__name__, reason=first_line(error))
                with self._lock:
                    self._unwritten = self._unwritten or progress
                    self._begun = begun + self._begun

    def _beat(self, progress: Progress | None, begun: list[Progress]) -> None:
        claim = self._claim
        with self._database.write() as connection:
            leases = LeaseRepository(connection)
            heartbeat = leases.heartbeat(claim.job_id, claim.fence, lease_s=self._settings.lease_s, progress=progress)
            for stage in begun:
                leases.stage_begun(claim.job_id, claim.fence, stage)
        if heartbeat is None:
            self.lost.set()
        elif heartbeat.cancel_requested:
            self.cancelled.set()
