"""``make chaos``: hundreds of jobs on two workers while faults are drawn at random, then every promise is checked.

Same seed, same jobs and same draws; when each strikes depends on the machine. Prints one table and the seed; exits with 1 where
a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from redis import Redis

from app.queue import create_celery, publish
from coppice import Client
from coppice.errors import ApiError, ServiceUnreachable
from tests import servers, tiny
from tests.faults.cluster import LEASE_S, SETTINGS, Cluster, Outcome, pool_of
from tests.faults.entry import Faults
from tests.faults.sleeper import REAL
from tests.integration.service import Backend

WORKERS = 2
_STATEMENT_FAILURES = 0.005


class Slot:
    """A place for one process, which may be emptied and filled again."""

    def __init__(self, start: Callable[[ExitStack], psutil.Process]) -> None:
        self._start = start
        self._stack = ExitStack()
        self.process = start(self._stack)

    def restart(self) -> None:
        """End what is there, if it lives, and start anew."""
        self.end()
        self._stack = ExitStack()
        self.process = self._start(self._stack)

    def end(self) -> None:
        """End what is there as its operator would."""
        self._stack.close()


class Chaos:
    """A cluster, and what can be done to it."""

    def __init__(self, cluster: Cluster, redis: servers.Server, postgres: servers.Server, seed: int) -> None:
        self.cluster, self.redis, self.postgres = cluster, redis, postgres
        self.chance = random.Random(seed)
        self.drawn: Counter[str] = Counter()
        self.job_ids: list[str] = []
        self._seeds = iter(range(seed, seed + 10**6))
        self.api = Slot(lambda stack: stack.enter_context(cluster.faulty_api(self._faults(), wait=False)))
        self.workers = [Slot(lambda stack: stack.enter_context(cluster.faulty_worker(self._faults()))) for _ in range(WORKERS)]

    def _faults(self) -> Faults:
        return Faults(sleeper=True, statement_failures=_STATEMENT_FAILURES, seed=next(self._seeds))

    def strike(self) -> None:
        """Draw one fault and let it happen."""
        name = self.chance.choice(sorted(self._kinds()))
        self.drawn[name] += 1
        with suppress(psutil.Error, ApiError, ServiceUnreachable):
            self._kinds()[name]()

    def submit(self, count: int, real: int, folder: Path) -> None:
        """Submit jobs, one key each, however often that takes."""
        model, data = tiny.write_model(folder / "model", "bert"), tiny.write_dataset(folder / "sst2")
        naps = random.Random(self.chance.random())
        with Client(self.cluster.url, retry_for_s=300) as client:
            for index in range(count):
                seed = REAL if index % max(1, count // max(1, real)) == 0 and real else naps.randrange(600)
                spec = tiny.tiny_spec(model, data, seed=seed).model_dump(mode="json")
                self.job_ids.append(client.submit(spec | {"priority": index % 10}, idempotency_key=f"chaos-{index}").id)
                time.sleep(0.1)

    def end(self) -> None:
        """End every process."""
        for slot in (*self.workers, self.api):
            slot.end()

    def _kinds(self) -> dict[str, Callable[[], None]]:
        worker = self.chance.choice(self.workers)
        return {
            "kill job child": lambda: _kill(pool_of(worker.process).children()),
            "kill pool process": lambda: _kill([pool_of(worker.process)]),
            "kill worker main": lambda: self._replace(worker, [worker.process]),
            "kill worker tree": lambda: self._replace(worker, [worker.process, *worker.process.children(recursive=True)]),
            "stop worker beyond lease": lambda: _freeze(worker.process, 1.5 * LEASE_S),
            "SIGTERM worker": worker.restart,
            "kill API": lambda: self._replace(self.api, [self.api.process]),
            "wipe Redis": self._wipe,
            "restart Redis": lambda: _bounce(self.redis, 1),
            "restart PostgreSQL": lambda: _bounce(self.postgres, 1),
            "PostgreSQL away beyond lease": lambda: _bounce(self.postgres, 1.5 * LEASE_S),
            "cancel a job": self._cancel,
            "message ten times": self._repeat,
        }

    def _replace(self, slot: Slot, victims: list[psutil.Process]) -> None:
        _kill(victims)
        time.sleep(self.chance.uniform(0, 2))
        slot.restart()

    def _wipe(self) -> None:
        with Redis.from_url(self.cluster.backend.broker_url) as connection:
            connection.flushall()

    def _cancel(self) -> None:
        if self.job_ids:
            with Client(self.cluster.url, retry_for_s=5) as client:
                client.cancel(self.chance.choice(self.job_ids[-40:]))

    def _repeat(self) -> None:
        celery = create_celery(self.cluster.settings)
        for _ in range(10):
            publish(celery, self.job_ids[-1] if self.job_ids else "job_none")
        celery.close()


def run(*, jobs: int, real: int, seed: int, minutes: float, folder: Path) -> tuple[Outcome, Counter[str], float]:
    """Run the whole thing; raises AssertionError where a promise is broken."""
    with servers.redis() as redis, servers.postgres() as postgres:
        backend = Backend(
            "production", folder / "data", servers.new_database(postgres.port), f"redis://127.0.0.1:{redis.port}/0"
        )
        settings = SETTINGS | {"COPPICE_MAX_ATTEMPTS": "6"}
        cluster = Cluster(backend, folder, folder, settings=settings)
        began = time.monotonic()
        chaos = Chaos(cluster, redis, postgres, seed)
        try:
            submitting = threading.Thread(target=chaos.submit, args=(jobs, real, folder), daemon=True)
            submitting.start()
            while submitting.is_alive() or time.monotonic() - began < 60 * minutes:
                time.sleep(chaos.chance.uniform(0.5, 4))
                chaos.strike()
            submitting.join()
            assert len(set(chaos.job_ids)) == jobs, "a job was not accepted"
            cluster.await_finish(chaos.job_ids, timeout_s=900)
        finally:
            chaos.end()
        return cluster.verify(chaos.job_ids), chaos.drawn, time.monotonic() - began


def main() -> None:
    """Parse the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--real", type=int, default=10, help="how many of them prune a real, tiny model; the others sleep")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=4, help="faults are drawn for at least so long")
    options = parser.parse_args()
    _say(f"seed {options.seed}: {options.jobs} jobs, {options.real} of them real, {WORKERS} workers")
    with tempfile.TemporaryDirectory(prefix="coppice-chaos-") as name:
        outcome, drawn, seconds = run(
            jobs=options.jobs, real=options.real, seed=options.seed, minutes=options.minutes, folder=Path(name)
        )
    for fault, count in sorted(drawn.items()):
        _say(f"  {count:4d}  {fault}")
    _say(f"{sum(drawn.values())} faults in {seconds:.0f} s, besides {_STATEMENT_FAILURES:.1%} of all statements failing")
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
    _say(f"terminal: {sum(outcome.statuses.values())}/{options.jobs} ({statuses})")
    _say(f"commits of one job, at most: {outcome.most_commits}; claims: {outcome.fences}; losses: {outcome.losses}; ", end="")
    _say(f"crashes: {outcome.crashes}")
    _say("no orphan process, no stray file, no row stuck")
    _say(f"seed {options.seed}")


def _kill(victims: list[psutil.Process]) -> None:
    for victim in victims:
        with suppress(psutil.Error):
            victim.kill()


def _freeze(process: psutil.Process, seconds: float) -> None:
    family = [process, *process.children(recursive=True)]
    for member in family:
        with suppress(psutil.Error):
            member.suspend()
    time.sleep(seconds)
    for member in family:
        with suppress(psutil.Error):
            member.resume()


def _bounce(server: servers.Server, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
