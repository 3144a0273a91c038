"""The reaper: brings back lost jobs, wakes sleeping ones, deletes files that no attempt owns. Safe to run twice at once."""

from __future__ import annotations

import math
import os
import socket
import threading
import time

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from app import queue
from app.db import Database
from app.jobs.calibrations import CalibrationRepository
from app.jobs.control import ControlRepository
from app.jobs.line import LineRepository
from app.jobs.needs import ANY, Abilities
from app.jobs.upkeep import UpkeepRepository
from app.logs import first_line
from app.operations.retention import Retention
from app.operations.tenants import TenantDeletion
from app.settings import Settings
from app.storage import ArtifactStore, StoreUnavailable
from app.tenants.repository import TenantRepository
from app.uploads.service import UploadService
from worker.kept import KeptRoom
from worker.scratch import ScratchRoom

_log = structlog.get_logger(__name__)

# With this many messages in the broker, the reaper adds none: a backlog of jobs must not flood the broker, and a worker that is
# awake goes on without messages.
_MOST_MESSAGES = 50
_SWEEP_EVERY_TICKS = 12
_SWEEP_KEYS = 1000
_FORGET_TURNS_S = 24 * 3600


class Reaper:
    """Looks after jobs and files in a thread of the worker's main process.

    Args:
        settings: Length of leases, and interval between looks.
        database: The database of jobs.
        store: The artifact store.
        celery: The Celery application that wake-ups are published with.
        sweep_keys: Number of the store's files that one sweep looks at.
        abilities: What the worker serves; None: what needs nothing.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        celery: Celery,
        *,
        sweep_keys: int = _SWEEP_KEYS,
        abilities: Abilities | None = None,
    ) -> None:
        self._abilities = abilities
        self._sweep_keys = sweep_keys
        self._settings = settings
        self._database = database
        self._store = store
        self._celery = celery
        self._uploads = UploadService(settings, database, store)
        self._tenants = TenantDeletion(settings, database, store)
        self._retention = Retention(settings, database, store)
        self._room = ScratchRoom(settings.resolved_scratch_dir)
        self._kept = KeptRoom(settings)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._watch = Watch(settings.lease_s, settings.reaper_tick_s)
        self._swept_up_to = ""
        self._looked_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin ticking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking; a tick under way is finished."""
        self._stop.set()

    def silent_s(self) -> float:
        """Return the seconds since a look was last finished without an error."""
        return time.monotonic() - self._looked_at

    def tick(self) -> None:
        """Look once, as the thread does: judge leases if the database has worked for long enough, and wake queued jobs.

        Deletions of tenants go on, too.
        """
        with self._database.write() as connection:
            clock = UpkeepRepository(connection).sign_in(self._name, self._abilities)
        if self._watch.look(clock):
            self.rescue()
        self.wake()
        self._tenants.advance_all(for_s=self._settings.reaper_tick_s)

    def rescue(self) -> None:
        """Take back the jobs whose leases have expired."""
        settings = self._settings
        with self._database.write() as connection:
            upkeep = UpkeepRepository(connection)
            longest_pause_s = settings.crash_pause_s * 2**settings.max_attempts
            moved = upkeep.set_right(lease_s=settings.lease_s, longest_pause_s=longest_pause_s)
            taken = upkeep.reap(max_attempts=settings.max_attempts)
        if moved:
            _log.warning("reaper.clock_put_back", jobs=moved)
        for job in taken:
            _log.warning("job.rescued", job_id=job.job_id, fence=job.fence, status=job.status)
            # If the lost attempt is still writing, a later sweep deletes the rest.
            self._store.delete_prefix(f"jobs/{job.job_id}/{job.fence}")

    def wake(self) -> None:
        """Publish jobs whose wake-up seems lost, as far as the broker has room for messages.

        Those that need nothing go to all workers. Those that this one's pool serves go to its pool: another might take the
        message and could do nothing with it. What no worker serves is not published.
        """
        self._wake(queue.QUEUE_NAME, [ANY])
        if self._abilities is None:
            return
        with self._database.read() as connection:
            found = {group.queue for group in LineRepository(connection).groups()}
        ours = sorted(name for name in found - {ANY} if self._abilities.serves_queue(name))
        if ours:
            self._wake(queue.pool_queue(self._abilities.pool), ours)

    def _wake(self, name: str, queues: list[str]) -> None:
        waiting = queue.depth(self._celery, name)
        if waiting is None or waiting >= _MOST_MESSAGES:
            return
        with self._database.write() as connection:
            if not ControlRepository(connection).is_open():  # nobody would take them; the look after it opens wakes them
                return
            due = UpkeepRepository(connection).due_for_publish(
                older_than_s=self._settings.republish_after_s,
                limit=_MOST_MESSAGES - waiting,
                patient=waiting > 0,
                queues=queues,
            )
        for index, job_id in enumerate(due):
            if not queue.publish(self._celery, job_id, name):
                with self._database.write() as connection:
                    UpkeepRepository(connection).not_published(due[index:])
                return

    def sweep(self) -> None:
        """Delete what is old, then look at the next page of the store's files, at uploads, at this host's scratch."""
        with self._database.write() as connection:
            upkeep = UpkeepRepository(connection)
            expired = upkeep.expire()
            upkeep.forget_keys(older_than_s=self._settings.idempotency_keep_s)
            if self._settings.calibrations_bytes is not None:
                CalibrationRepository(connection).bring_within(self._settings.calibrations_bytes)
            LineRepository(connection).forget(older_than_s=_FORGET_TURNS_S)
        for job_id in expired:
            _log.info("artifacts.expired", job_id=job_id)
        self._sweep_store(expired)
        self._retention.sweep(for_s=self._settings.reaper_tick_s)
        self._uploads.sweep()
        self._sweep_scratch()
        with self._database.read() as connection:
            deletions = TenantRepository(connection).deletions()
        self._kept.sweep(deletions)

    def _sweep_store(self, expired: list[str]) -> None:
        """Delete the files of fences that neither run nor have published."""
        for job_id in expired:
            self._store.delete_prefix(f"jobs/{job_id}")
        # List files before asking the database: fences that begin in between have then no files in the list.
        keys = self._store.keys("jobs", after=self._swept_up_to, limit=self._sweep_keys)
        self._swept_up_to = keys[-1] if len(keys) == self._sweep_keys else ""
        found = {(parts[1], parts[2]) for key in keys if len(parts := key.split("/")) > 3}
        with self._database.read() as connection:
            live = UpkeepRepository(connection).live_fences({job_id for job_id, _fence in found})
        for job_id, fence in sorted(found):
            if not fence.isdigit() or int(fence) not in live[job_id]:
                self._store.delete_prefix(f"jobs/{job_id}/{fence}")
                _log.info("artifacts.swept", job_id=job_id, fence=fence)

    def _sweep_scratch(self) -> None:
        """Delete what killed workers of this host have left, but for the work that a later attempt can go on from."""
        attempts = list(self._room.attempts())
        with self._database.read() as connection:
            unfinished = UpkeepRepository(connection).unfinished({attempt.job_id for attempt in attempts})
        for attempt in attempts:
            if attempt.job_id not in unfinished:
                attempt.delete()
            elif unfinished[attempt.job_id] != attempt.fence:
                attempt.keep_work()

    def _run(self) -> None:
        ticks = 0
        while not self._stop.is_set():
            try:
                self.tick()
                if ticks % _SWEEP_EVERY_TICKS == 0:
                    self.sweep()
                self._looked_at = time.monotonic()
            except SQLAlchemyError as error:
                _log.warning("reaper.database_unavailable", error=type(error).__name__, reason=first_line(error))
            except (OSError, StoreUnavailable) as error:
                _log.warning("reaper.store_unavailable", error=type(error).__name__, reason=first_line(error))
            except Exception:
                _log.exception("reaper.failed")
            finally:
                # This process forks, so no connection may stay open across ticks.
                self._database.close()
            ticks += 1
            self._stop.wait(self._settings.reaper_tick_s)


class Watch:
    """Whether leases may be judged: workers must have had one lease's time to renew them.

    They had not if the database took no writes, or if its clock has leapt (a host that slept, an operator who set it). So the
    reaper begins anew after either, and at its own start, when it does not know what has been.
    """

    def __init__(self, lease_s: float, tick_s: float) -> None:
        self._lease_s = lease_s
        # The longest harmless gap between two looks: too short for a lease to run out, and long enough for a slow reaper.
        self._gap_s = max(lease_s / 2, 2 * tick_s)
        self._since = -math.inf
        self._last = -math.inf
        self._offset_s = 0.0

    def look(self, database_clock: float) -> bool:
        """Note that the database took a write, and its clock. Return whether it has done so for one lease."""
        here = time.monotonic()
        offset_s = database_clock - here
        if here - self._last > self._gap_s or abs(offset_s - self._offset_s) > self._gap_s:
            self._since = here
        self._last, self._offset_s = here, offset_s
        return here - self._since >= self._lease_s
