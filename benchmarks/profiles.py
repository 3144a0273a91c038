"""The two profiles of the service, each measured with real processes on this host: API, workers, Redis and PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pruning_core.spec.prune import PruneSpec
from tests import servers, tiny
from tests.faults.cluster import SETTINGS, Cluster
from tests.integration.service import Backend


class Bench:
    """One profile of the service. Every measurement starts a new service."""

    def __init__(self, profile: str, folder: Path, ports: tuple[int, int] | None) -> None:
        self.profile = profile
        self._folder = folder
        self._ports = ports
        self._count = 0
        self._model = tiny.write_model(folder / "model", "bert")
        self._data = tiny.write_dataset(folder / "data")

    def nap(self, seconds: float) -> PruneSpec:
        """Return the spec of a job that sleeps."""
        return tiny.tiny_spec(self._model, self._data, seed=round(1000 * seconds))

    def cluster(self, tree: Path | None = None) -> Cluster:
        """Return a new service with a migrated database and no jobs; of another checkout where one is named."""
        self._count += 1
        work = self._folder / str(self._count)
        work.mkdir()
        backend = Backend(self.profile, work / "data", "", "")
        if self._ports is not None:
            redis, postgres = self._ports
            broker = f"redis://127.0.0.1:{redis}/{self._count % 16}"
            backend = Backend(self.profile, work / "data", servers.new_database(postgres), broker)
        # A long lease, so that no job loses it on a busy host.
        settings = SETTINGS | {"COPPICE_LEASE_S": "30", "COPPICE_MAX_QUEUED_JOBS": "1000000", "COPPICE_REPUBLISH_AFTER_S": "10"}
        if tree is not None:
            # Without the current folder, which Python would search first.
            settings |= {"PYTHONPATH": str(tree.absolute()), "PYTHONSAFEPATH": "1"}
        return Cluster(backend, work, self._folder, settings=settings)


@contextmanager
def profiles(*, durable: bool = False) -> Iterator[list[Bench]]:
    """Run the servers of both profiles. ``durable``: PostgreSQL waits for the disk at every commit, as SQLite does."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coppice-bench-")))
        redis, postgres = stack.enter_context(servers.redis()), stack.enter_context(servers.postgres(durable=durable))
        places = [folder / "local", folder / "production"]
        for place in places:
            place.mkdir()
        yield [
            Bench("SQLite, folder broker", places[0], None),
            Bench("PostgreSQL, Redis", places[1], (redis.port, postgres.port)),
        ]
