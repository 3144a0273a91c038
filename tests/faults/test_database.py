"""The database restarted, away for longer than a lease, or failing at random; the API killed around its commit."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs as jobs_table
from coppice import Client
from coppice.errors import ApiError
from coppice.types import Job
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import LEASE_S, Cluster
from tests.faults.conftest import LOCAL, PRODUCTION
from tests.faults.entry import Faults
from tests.integration.service import child_of
from tests.servers import Server, wait_until

Measured = Callable[[str], None]
Nap = Callable[[float], PruneSpec]

on_postgres = pytest.mark.parametrize("backend", [PRODUCTION], indirect=True)


@on_postgres
@pytest.mark.row("PostgreSQL restarted", "503 with Retry-After; running jobs keep going")
def test_a_restarted_database_costs_no_attempt(
    make_cluster: Callable[..., Cluster], spec: PruneSpec, postgres_process: Server, measured: Measured
) -> None:
    cluster = make_cluster(lease_s="15")
    with cluster.api() as client, cluster.worker() as worker, Client(cluster.url, retry_for_s=0) as impatient:
        job = client.submit(spec)
        child_of(worker, job.id)
        postgres_process.stop()
        with pytest.raises(ApiError) as refused:
            impatient.get(job.id)
        assert (refused.value.status, refused.value.code) == (503, "database_unavailable")
        with pytest.raises(ApiError) as refused:
            impatient.submit(spec)
        assert refused.value.status == 503
        time.sleep(3)
        postgres_process.start()
        assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([job.id])
    assert (outcome.fences, outcome.losses, outcome.crashes) == (1, 0, 0)
    measured("503, then the first attempt succeeded")


@on_postgres
@pytest.mark.row("PostgreSQL sessions terminated, again and again", "running jobs keep going")
def test_terminated_sessions_cost_no_attempt(
    cluster: Cluster, client: Client, nap: Nap, own_postgres: Server, measured: Measured
) -> None:
    with cluster.api(), cluster.sleeping_worker(), cluster.sleeping_worker():
        jobs = [client.submit(nap(0.7)) for _ in range(12)]
        ended = 0
        for _ in range(10):
            ended += _terminate_sessions(cluster)
            time.sleep(0.5)
        for job in jobs:
            assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([job.id for job in jobs])
    assert ended > 10
    measured(f"{ended} sessions ended; {len(jobs)} jobs, {outcome.fences} claims")


@pytest.mark.row("database down for longer than the lease", "no mass requeue")
def test_a_long_outage_requeues_nothing(
    cluster: Cluster, client: Client, nap: Nap, request: pytest.FixtureRequest, measured: Measured
) -> None:
    with cluster.api(), cluster.sleeping_worker(), cluster.sleeping_worker():
        jobs = [client.submit(nap(4)) for _ in range(2)]
        wait_until(lambda: len(client.list(statuses=["running"])) == 2, "both to run")
        time.sleep(LEASE_S + 1)  # both reapers judge by now
        more = [client.submit(nap(2 * LEASE_S)) for _ in range(2)]
        for job in jobs:
            client.wait(job.id)
        wait_until(lambda: len(client.list(statuses=["running"])) == 2, "the next two to run")
        with _outage(cluster, request):
            time.sleep(2 * LEASE_S)
        for job in more:
            assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([job.id for job in (*jobs, *more)])
    assert (outcome.fences, outcome.losses) == (4, 0)
    measured(f"down for {2 * LEASE_S:.0f} s, lease {LEASE_S:.0f} s: 0 of 2 running jobs requeued")


@pytest.mark.short
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("api before commit", marks=pytest.mark.row("API killed before its commit", "one row, same id")),
        pytest.param("api after commit", marks=pytest.mark.row("API killed after its commit", "one row, same id")),
    ],
)
def test_a_client_that_retries_its_key_gets_one_job(
    cluster: Cluster, client: Client, nap: Nap, flag: Path, measured: Measured, point: Any
) -> None:
    with cluster.faulty_api(Faults(point=point, once=flag)):
        client.list()
        answers: list[str] = []
        submit = threading.Thread(target=lambda: answers.append(client.submit(nap(0), idempotency_key="once").id))
        submit.start()
        wait_until(flag.exists, "the kill")
        with cluster.api(), cluster.sleeping_worker():
            submit.join(60)
            again = client.submit(nap(0), idempotency_key="once").id
            assert answers == [again]
            assert client.wait(again).status == "succeeded"
    database = cluster.backend.database()
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(jobs_table)) == 1
    database.close()
    cluster.verify([again])
    measured("two answers, one id, one row")


@pytest.mark.row("two API processes, the same key sent to both at once", "one row, same id")
def test_two_apis_agree_on_a_key(make_cluster: Callable[..., Cluster], nap: Nap, measured: Measured) -> None:
    first, second = make_cluster(), make_cluster()  # one backend, two ports
    with first.api() as here, second.api() as there, first.sleeping_worker(), ThreadPoolExecutor(2) as pool:
        ids = []
        for index in range(20):
            key = f"key-{index}"
            pair = list(pool.map(lambda api, key=key: api.submit(nap(0), idempotency_key=key).id, (here, there)))
            assert pair[0] == pair[1]
            ids.append(pair[0])
        assert len(set(ids)) == 20
        first.await_finish(ids)
        assert {there.get(job_id).status for job_id in ids} == {"succeeded"}
    assert first.verify(ids).fences == 20
    measured("20 keys, 40 answers, 20 jobs")


@pytest.mark.row("random statement failures at the database layer", "invariants hold")
def test_failing_statements_break_no_promise(cluster: Cluster, client: Client, nap: Nap, measured: Measured) -> None:
    faults = [Faults(sleeper=True, statement_failures=0.04, seed=seed) for seed in (1, 2, 3)]
    with cluster.faulty_api(faults[0]), cluster.faulty_worker(faults[1]), cluster.faulty_worker(faults[2]):

        def submit(index: int) -> Job:
            job = client.submit(nap(0.2))
            if index % 8 == 0:
                with suppress(ApiError):  # it has finished already
                    client.cancel(job.id)
            return job

        with ThreadPoolExecutor(8) as pool:  # whoever meets a failure waits as long as the service asks
            jobs = list(pool.map(submit, range(40)))
        cluster.await_finish([job.id for job in jobs])
    outcome = cluster.verify([job.id for job in jobs])
    assert outcome.statuses["succeeded"] >= len(jobs) - 5 - 2
    logs = b"".join(path.read_bytes() for path in cluster.log_folder.glob("*.log"))
    assert b"injected by a test" in logs
    measured(f"40 of 40 terminal: {_counts(outcome.statuses)}; {outcome.losses} losses")


def _counts(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def _terminate_sessions(cluster: Cluster) -> int:
    database = cluster.backend.database()
    try:
        with database.engine.connect() as connection:
            others = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return len(connection.exec_driver_sql(others).all())
    finally:
        database.close()


@contextmanager
def _outage(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Take the database away: PostgreSQL is stopped; SQLite is locked by somebody who does not let go."""
    if cluster.backend.name != LOCAL:
        server: Server = request.getfixturevalue("postgres_process")
        server.stop()
        yield
        server.start()
        return
    connection = sqlite3.connect(cluster.backend.data_dir / "coppice.db", isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()
