"""``make soak``: an API and two workers under a mixed load with faults and deletions for half an hour, watched for growth.

Nothing that is watched may be larger in the last quarter than in the second, but for what its limit allows: memory and open
files of the long-lived processes, connections, rows, and bytes on disk. The first quarter is for caches to fill. Prints a
line for each thing and writes the samples as JSON; exits with 1 where something has grown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil
import sqlalchemy as sa
from redis import Redis
from sqlalchemy.exc import SQLAlchemyError

from coppice import Client
from coppice.errors import ApiError, CoppiceError, ServiceUnreachable
from tests import servers, tiny
from tests.faults.cluster import SETTINGS, Cluster, pool_of
from tests.faults.entry import Faults
from tests.faults.sleeper import REAL
from tests.integration.service import Backend

_MB = 2**20
_KEPT_JOBS = 40  # finished ones, before the oldest are deleted
_STREAMS = 20
_MOST_WAITING = 50
# What must not grow by more than a share, or by so much where that is more.
_SHARE = 0.1
_LEEWAY = {"memory": 16 * _MB, "files": 8, "connections": 2, "rows": 200, "bytes": 8 * _MB}
_RETENTION = {
    "COPPICE_AUDIT_KEEP_S": "60",
    "COPPICE_EVENTS_KEEP_S": "60",
    "COPPICE_IDEMPOTENCY_KEEP_S": "60",
    "COPPICE_STATISTICS_BYTES": str(4 * _MB),
}

# The database restarts, and other threads delete jobs.
_EXPECTED = (ApiError, ServiceUnreachable, httpx2.HTTPError)


@dataclass(frozen=True)
class Watched:
    """One series of samples."""

    name: str
    kind: str
    read: Callable[[], float]
    samples: list[float] = field(default_factory=list)

    @property
    def quarters(self) -> tuple[float, float]:
        """The medians of the second and of the last quarter."""
        quarter = len(self.samples) // 4
        return statistics.median(self.samples[quarter : 2 * quarter]), statistics.median(self.samples[-quarter:])

    @property
    def has_grown(self) -> bool:
        """Whether the last quarter is larger than allowed."""
        before, after = self.quarters
        return after - before > max(_SHARE * before, _LEEWAY[self.kind])


class Load:
    """What clients do, each in a thread of its own, until the end."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._url, self._chance = url, random.Random(seed)
        self._model, self._data = tiny.write_model(folder / "model", "bert"), tiny.write_dataset(folder / "sst2")
        self._over = threading.Event()
        self._numbers = itertools.count()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._again, args=(what, pause_s), daemon=True)
            for what, pause_s in [
                (self._submit, 0.4),
                (self._derive, 5.0),
                (self._look, 0.5),
                (self._search, 1.0),
                (self._download, 3.0),
                (self._upload, 5.0),
                (self._cancel, 4.0),
                (self._delete, 0.5),
                *[(self._follow, 0.2)] * _STREAMS,
            ]
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let everybody finish what they are at."""
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _again(self, what: Callable[[Client, random.Random], object], pause_s: float) -> None:
        chance = random.Random(self._chance.random())
        with Client(self._url, retry_for_s=60) as client:
            while not self._over.wait(pause_s * chance.uniform(0.5, 1.5)):
                name = what.__name__.strip("_")
                try:
                    if what(client, chance) is not None:
                        self.done[name] += 1
                except (
                    ApiError,
                    ServiceUnreachable,
                    httpx2.HTTPError,
                ) as error:  # the database restarts, another thread has deleted the job
                    self.refused[f"{name}: {getattr(error, 'code', 'unreachable')}"] += 1

    def _submit(self, client: Client, chance: random.Random) -> object:
        # A queue that grows since workers are slower than submits is no leak.
        if len(client.list(statuses=["queued"], limit=_MOST_WAITING)) >= _MOST_WAITING:
            return None
        number = next(self._numbers)
        seed = REAL if number % 40 == 0 else chance.randrange(400)
        spec = tiny.tiny_spec(self._model, self._data, seed=seed).model_dump(mode="json")
        return client.submit(spec | {"metadata": {"group": str(number % 7)}})

    def _derive(self, client: Client, chance: random.Random) -> object:
        finished = client.list(statuses=["succeeded"])
        return client.derive(chance.choice(finished).id, sparsity=chance.uniform(0.2, 0.6)) if finished else None

    def _look(self, client: Client, chance: random.Random) -> object:
        jobs = client.list()
        return client.get(chance.choice(jobs).id) if jobs else None

    def _search(self, client: Client, chance: random.Random) -> object:
        return client.list(metadata={"group": str(chance.randrange(7))}, limit=100)

    def _download(self, client: Client, chance: random.Random) -> object:
        finished = client.list(statuses=["succeeded"])
        if not finished:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return client.download(chance.choice(finished).id, Path(folder))

    def _upload(self, client: Client, _chance: random.Random) -> object:
        upload = client.upload_model(self._model)
        return httpx2.delete(f"{self._url}/v1/models/{upload.id}", timeout=60)

    def _cancel(self, client: Client, chance: random.Random) -> object:
        waiting = client.list(statuses=["queued", "running"])
        return client.cancel(chance.choice(waiting).id) if waiting else None

    def _delete(self, client: Client, _chance: random.Random) -> object:
        ended = client.list(statuses=["succeeded", "failed", "cancelled"], limit=400)
        for job in ended[_KEPT_JOBS:]:
            with suppress(ApiError):
                client.delete(job.id)
                self.done["jobs deleted"] += 1
        return None

    def _follow(self, client: Client, chance: random.Random) -> object:
        jobs = client.list()
        return [*client.follow(chance.choice(jobs).id)] if jobs else None


class Strikes:
    """Faults that leave the long-lived processes alive."""

    def __init__(self, workers: list[psutil.Process], redis: servers.Server, postgres: servers.Server, broker: str) -> None:
        self._workers, self._redis, self._postgres, self._broker = workers, redis, postgres, broker
        self.drawn: Counter[str] = Counter()

    def strike(self, chance: random.Random) -> None:
        """Let one of them happen."""
        worker = chance.choice(self._workers)
        kinds: dict[str, Callable[[], object]] = {
            "kill a job's process": lambda: [child.kill() for child in pool_of(worker).children()],
            "kill a pool's process": lambda: pool_of(worker).kill(),
            "wipe Redis": self._wipe,
            "restart Redis": lambda: _bounce(self._redis),
            "restart PostgreSQL": lambda: _bounce(self._postgres),
        }
        name = chance.choice(sorted(kinds))
        self.drawn[name] += 1
        with suppress(psutil.Error, CoppiceError):
            kinds[name]()

    def _wipe(self) -> None:
        with Redis.from_url(self._broker) as connection:
            connection.flushall()


def run(*, minutes: float, seed: int, folder: Path) -> tuple[list[Watched], Load, Strikes]:
    """Run the whole thing, and return what was watched."""
    chance = random.Random(seed)
    with servers.redis() as redis, servers.postgres() as postgres, ExitStack() as stack:
        url, broker = servers.new_database(postgres.port), f"redis://127.0.0.1:{redis.port}/0"
        cluster = Cluster(Backend("production", folder / "data", url, broker), folder, folder, settings=SETTINGS | _RETENTION)
        api = stack.enter_context(cluster.faulty_api())
        workers = [stack.enter_context(cluster.faulty_worker(Faults(sleeper=True))) for _ in range(2)]
        for worker in workers:
            pool_of(worker)
        watched = _series(api, workers, url, folder / "data")
        load, strikes = Load(cluster.url, folder, seed), Strikes(workers, redis, postgres, broker)
        load.start()
        began = struck = sampled = time.monotonic()
        every_s = max(1.0, 60 * minutes / 240)
        try:
            while (now := time.monotonic()) - began < 60 * minutes:
                time.sleep(0.2)
                if now - struck > 30:
                    struck = now
                    strikes.strike(chance)
                if now - sampled > every_s:
                    sampled = now
                    _sample(watched)
        finally:
            load.end()
    return watched, load, strikes


def _series(api: psutil.Process, workers: list[psutil.Process], url: str, folder: Path) -> list[Watched]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def number(query: str) -> Callable[[], float]:
        def read() -> float:
            with engine.connect() as connection:
                return float(connection.scalar(sa.text(query)) or 0)

        return read

    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    series = [
        Watched("API: memory", "memory", lambda: api.memory_info().rss),
        Watched("API: open files", "files", api.num_fds),
        Watched("API: threads", "files", api.num_threads),
    ]
    for place, worker in enumerate(workers, start=1):
        series += [
            Watched(f"worker {place}: memory", "memory", lambda worker=worker: worker.memory_info().rss),
            Watched(f"worker {place}: open files", "files", worker.num_fds),
        ]
    series.append(Watched("connections to PostgreSQL", "connections", number(ours)))
    for table in ("jobs", "job_events", "artifacts", "audit_events", "idempotency_keys", "job_labels"):
        series.append(Watched(f"rows of {table}", "rows", number(f"SELECT count(*) FROM {table}")))
    for name in ("artifacts", "scratch", "statistics"):
        series.append(Watched(f"bytes of {name}", "bytes", lambda name=name: _bytes_of(folder / name)))
    return series


def _sample(watched: list[Watched]) -> None:
    """Sample everything at one moment, or nothing: the database may be away."""
    try:
        found = [own.read() for own in watched]
    except (SQLAlchemyError, OSError):
        return
    for own, value in zip(watched, found, strict=True):
        own.samples.append(value)


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def _bounce(server: servers.Server) -> None:
    server.stop()
    time.sleep(1)
    server.start()


def main() -> None:
    """Parse the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=None, help="file for the samples, as JSON")
    options = parser.parse_args()
    _say(f"seed {options.seed}: {options.minutes:g} minutes")
    with tempfile.TemporaryDirectory(prefix="coppice-soak-") as name:
        watched, load, strikes = run(minutes=options.minutes, seed=options.seed, folder=Path(name))
    if options.out is not None:
        options.out.write_text(json.dumps({own.name: own.samples for own in watched}), encoding="utf-8")
    _say(f"done: {_counted(load.done)}")
    _say(f"refused: {_counted(load.refused) or 'nothing'}")
    _say(f"faults: {_counted(strikes.drawn)}")
    for own in watched:
        before, after = own.quarters
        unit = _MB if own.kind in ("memory", "bytes") else 1
        marked = "  GREW" if own.has_grown else ""
        _say(f"  {own.name:28} {before / unit:10.1f} {after / unit:10.1f}  ({len(own.samples)} samples){marked}")
    sys.exit(any(own.has_grown for own in watched))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
