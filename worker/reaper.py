"""The reaper: brings back lost jobs, wakes sleeping ones, deletes files that no attempt owns. Safe to run twice at once."""

from __future__ import annotations

import threading
import time

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from app import queue
from app.db import Database
from app.jobs.leases import LeaseRepository
from app.settings import Settings
from app.storage import ArtifactStore

_log = structlog.get_logger(__name__)

# So many wake-ups a tick: a backlog must not flood the broker, and every finished job makes room for the next anyway.
_PUBLISH_LIMIT = 50
_SWEEP_EVERY_TICKS = 12


class Reaper:
    """Looks after jobs and files in a thread of the worker's main process."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore, celery: Celery) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._celery = celery
        self._stop = threading.Event()
        self._quiet_until = 0.0
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin ticking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking; a tick under way is finished."""
        self._stop.set()

    def tick(self) -> None:
        """Look once: expired leases, then jobs whose wake-up seems lost."""
        with self._database.write() as connection:
            leases = LeaseRepository(connection)
            requeued = leases.reap(max_attempts=self._settings.max_attempts) if time.monotonic() >= self._quiet_until else []
            due = leases.due_for_publish(older_than_s=self._settings.republish_after_s, limit=_PUBLISH_LIMIT)
        for job_id in requeued:
            _log.warning("job.rescued", job_id=job_id)
        for job_id in due:
            if not queue.publish(self._celery, job_id):
                return  # the broker is down; the next tick tries again

    def sweep(self) -> None:
        """Delete the files of fences that neither run nor have published."""
        # Files are listed before the database is asked: what appears in between belongs to a living fence.
        found = {job_id: self._store.children(f"jobs/{job_id}") for job_id in self._store.children("jobs")}
        with self._database.read() as connection:
            live = LeaseRepository(connection).live_fences(list(found))
        for job_id, fences in found.items():
            for fence in fences:
                if not fence.isdigit() or int(fence) not in live[job_id]:
                    self._store.delete_prefix(f"jobs/{job_id}/{fence}")
                    _log.info("artifacts.swept", job_id=job_id, fence=fence)
            if not live[job_id]:
                self._store.delete_prefix(f"jobs/{job_id}")

    def _run(self) -> None:
        ticks = 0
        while not self._stop.is_set():
            try:
                self.tick()
                if ticks % _SWEEP_EVERY_TICKS == 0:
                    self.sweep()
            except SQLAlchemyError as error:
                # Workers could not renew either: give them one lease before judging any.
                self._quiet_until = time.monotonic() + self._settings.lease_s
                _log.warning("reaper.database_unavailable", error=type(error).__name__)
            except Exception:
                _log.exception("reaper.failed")
            finally:
                # The pool is not kept open across ticks: this process forks.
                self._database.close()
            ticks += 1
            self._stop.wait(self._settings.reaper_tick_s)
