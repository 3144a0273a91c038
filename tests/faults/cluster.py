"""A service of several processes to which anything may be done, and what must be true of it afterwards."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import sqlalchemy as sa

from app.db import OUTAGES
from app.jobs.models import artifacts, job_events, jobs
from app.jobs.records import TERMINAL_EVENTS
from app.jobs.states import TERMINAL
from app.queue import create_celery
from app.settings import Settings
from app.storage import ArtifactStore, create_store
from coppice import Client
from tests.faults.entry import VARIABLE, Faults
from tests.integration.service import Service, answers
from tests.servers import wait_until
from worker.reaper import Reaper

LEASE_S = 5.0
TICK_S = 0.5
HEARTBEAT_S = 0.5
SETTINGS = {
    "COPPICE_LEASE_S": str(LEASE_S),
    "COPPICE_REAPER_TICK_S": str(TICK_S),
    "COPPICE_HEARTBEAT_S": str(HEARTBEAT_S),
    "COPPICE_MIN_FREE_BYTES": "0",
}


@dataclass(frozen=True)
class Outcome:
    """What was found of the jobs that were looked at."""

    statuses: Counter[str]
    most_commits: int
    fences: int  # claims in all
    losses: int
    crashes: int


class Cluster(Service):
    """A `Service` whose processes may have faults built in, and that can be judged when they have ended."""

    @contextmanager
    def faulty_api(self, faults: Faults | None = None, *, wait: bool = True) -> Iterator[psutil.Process]:
        """Run an API on this service's port."""
        port = self.url.rpartition(":")[2]
        environment = {VARIABLE: (faults or Faults()).model_dump_json()}
        with self.process("api", "-m", "tests.faults.entry", "api", port, changes=environment) as process:
            if wait:
                with Client(self.url, retry_for_s=0) as impatient:
                    wait_until(lambda: answers(impatient), "the API to answer")
            yield process

    @contextmanager
    def faulty_worker(self, faults: Faults) -> Iterator[psutil.Process]:
        """Run a worker with faults."""
        environment = {VARIABLE: faults.model_dump_json()}
        with self.process("worker", "-m", "tests.faults.entry", "worker", changes=environment) as process:
            yield process

    @contextmanager
    def sleeping_worker(self) -> Iterator[psutil.Process]:
        """Run a worker whose jobs sleep."""
        with self.faulty_worker(Faults(sleeper=True)) as process:
            yield process

    @property
    def settings(self) -> Settings:
        """Give the settings that the processes have."""
        ours = {name: value for name, value in self._environment.items() if name.startswith("COPPICE_")}
        before = {name: value for name, value in os.environ.items() if name.startswith("COPPICE_")}
        try:
            os.environ.update(ours)
            return Settings()
        finally:
            for name in ours:
                os.environ.pop(name)
            os.environ.update(before)

    @property
    def store(self) -> ArtifactStore:
        """Open the store that the processes use."""
        return create_store(self.settings)

    def column(self, job_id: str, name: str) -> object:
        """Read one column of a job; None while the database does not answer."""
        database = self.backend.database()
        try:
            with suppress(*OUTAGES), database.read() as connection:
                return connection.scalar(sa.select(jobs.c[name]).where(jobs.c.id == job_id))
        finally:
            database.close()
        return None

    def event_times(self, job_id: str, kind: str) -> list[float]:
        """Give the moments of one kind of event, by the database's clock, which is this host's."""
        database = self.backend.database()
        try:
            with database.read() as connection:
                query = sa.select(job_events.c.created_at).where(job_events.c.job_id == job_id, job_events.c.type == kind)
                return list(connection.scalars(query.order_by(job_events.c.id)))
        finally:
            database.close()

    def await_finish(self, job_ids: Collection[str], timeout_s: float = 120) -> None:
        """Wait until jobs are terminal, looking into the database, whatever the API does."""
        database = self.backend.database()
        open_jobs = sa.select(sa.func.count()).where(jobs.c.id.in_(job_ids), jobs.c.status.not_in(sorted(TERMINAL)))

        def finished() -> bool:
            with suppress(*OUTAGES), database.read() as connection:
                return connection.scalar(open_jobs) == 0
            return False

        try:
            wait_until(finished, f"{len(job_ids)} jobs to finish", timeout_s)
        finally:
            database.close()

    def verify(self, job_ids: Collection[str]) -> Outcome:
        """Judge the state after all processes have ended.

        Every accepted job is terminal and ended once; its artifacts are whole and of one fence; after a sweep the store and the
        scratch folder hold nothing else; no process is left.
        """
        assert self._orphans() == []
        database = self.backend.database()
        try:
            with database.read() as connection:
                rows = connection.execute(sa.select(jobs).where(jobs.c.id.in_(job_ids))).all()
                ends = (
                    sa.select(job_events.c.job_id, sa.func.count().label("n"))
                    .where(job_events.c.type.in_([str(kind) for kind in TERMINAL_EVENTS]))
                    .group_by(job_events.c.job_id)
                )
                commits = {row.job_id: row.n for row in connection.execute(ends)}
                files = connection.execute(sa.select(artifacts)).all()
            assert {row.id for row in rows} == set(job_ids), "an accepted job is not in the database"
            stuck = [row.id for row in rows if row.status not in TERMINAL]
            assert stuck == []
            assert {row.id: commits.get(row.id, 0) for row in rows if commits.get(row.id) != 1} == {}
            fences = {row.id: row.fence for row in rows}
            assert [file for file in files if file.job_id in fences and file.fence != fences[file.job_id]] == []
            self._verify_files(files)
        finally:
            database.close()
        return Outcome(
            statuses=Counter(row.status for row in rows),
            most_commits=max(commits.get(row.id, 0) for row in rows),
            fences=sum(fences.values()),
            losses=sum(row.losses for row in rows),
            crashes=sum(row.crashes for row in rows),
        )

    def _verify_files(self, files: list) -> None:
        settings, database, store = self.settings, self.backend.database(), self.store
        reaper = Reaper(settings, database, store, create_celery(settings))
        before = None
        while (keys := store.keys("jobs", after="", limit=10**6)) != before:
            before = keys
            reaper.sweep()
        database.close()
        published = {f"jobs/{file.job_id}/{file.fence}/{file.path}": file for file in files}
        assert set(keys) == set(published), "the store holds other files than those that are published"
        for key, file in published.items():
            assert sum(map(len, store.open(key, 0, file.size + 1))) == file.size
        scratch = settings.resolved_scratch_dir
        assert not scratch.is_dir() or list(scratch.iterdir()) == []

    def _orphans(self) -> list[str]:
        """Find processes of this service: a moment after the end there are none."""
        deadline = time.monotonic() + 5
        while (found := list(self._family())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _family(self) -> Iterator[str]:
        mark = self._environment["COPPICE_DATA_DIR"]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("COPPICE_DATA_DIR") == mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield f"{process.pid} {' '.join(process.cmdline())}"


def pool_of(worker: psutil.Process) -> psutil.Process:
    """Wait for the pool's process of a worker's main process, and give it."""
    wait_until(lambda: bool(worker.children()), "the pool's process")
    return worker.children()[0]


def tree_of(process: psutil.Process) -> list[psutil.Process]:
    """Give a process and all below it, the lowest last."""
    return [process, *process.children(recursive=True)]
