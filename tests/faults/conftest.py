"""Servers that may be stopped, clusters on both profiles, and the table that is printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from coppice import Client
from pruning_core.spec.prune import PruneSpec
from tests import servers
from tests.faults.cluster import SETTINGS, Cluster
from tests.integration.service import Backend
from tests.tiny import tiny_spec

LOCAL, PRODUCTION = "SQLite, folder broker", "PostgreSQL, Redis"


@pytest.fixture(scope="session")
def own_redis() -> Iterator[servers.Server]:
    """A Redis of this session's own."""
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[servers.Server]:
    """A PostgreSQL of this session's own."""
    with servers.postgres() as server:
        yield server


@pytest.fixture
def redis_process(own_redis: servers.Server) -> Iterator[servers.Server]:
    """A Redis that a test may stop."""
    yield own_redis
    own_redis.restart()


@pytest.fixture
def postgres_process(own_postgres: servers.Server) -> Iterator[servers.Server]:
    """A PostgreSQL that a test may stop."""
    yield own_postgres
    own_postgres.restart()


@pytest.fixture(params=[LOCAL, PRODUCTION])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Either profile, without state."""
    if request.param == LOCAL:
        return Backend(LOCAL, tmp_path / "data", "", "")
    redis: servers.Server = request.getfixturevalue("own_redis")
    postgres: servers.Server = request.getfixturevalue("own_postgres")
    from redis import Redis

    url = f"redis://127.0.0.1:{redis.port}/0"
    with Redis.from_url(url) as connection:
        connection.flushall()
    return Backend(PRODUCTION, tmp_path / "data", servers.new_database(postgres.port), url)


@pytest.fixture
def make_cluster(backend: Backend, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Callable[..., Cluster]:
    """Build a cluster with settings of its own, and a backend of its own if need be."""

    def make(place: Backend = backend, **settings: str) -> Cluster:
        changes = {f"COPPICE_{name.upper()}": value for name, value in settings.items()}
        return Cluster(place, tmp_path, tiny_bert, tiny_sst2, settings=SETTINGS | changes)

    return make


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A migrated service; nothing runs yet."""
    return make_cluster()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A patient client of the cluster."""
    with Client(cluster.url, retry_for_s=60) as client:
        yield client


@pytest.fixture
def spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    """A real pruning job of a few seconds."""
    return tiny_spec(tiny_bert, tiny_sst2)


@pytest.fixture
def long_spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    """A real pruning job of minutes: its latency is measured a thousand times. No switch of the product makes it last."""
    return tiny_spec(tiny_bert, tiny_sst2, latency={"batch": 512, "length": 64, "repeats": 1000})


@pytest.fixture
def nap(tiny_bert: Path, tiny_sst2: Path) -> Callable[[float], PruneSpec]:
    """A job for `tests.faults.sleeper`, which sleeps for so many seconds."""
    return lambda seconds: tiny_spec(tiny_bert, tiny_sst2, seed=round(1000 * seconds))


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """A file that is made once a fault has struck."""
    return tmp_path / f"struck-{uuid4().hex}"


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Write something measured into the table's row."""
    return lambda text: record_property("measured", text)


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    marker = request.node.get_closest_marker("row")
    if marker is not None:
        profile = request.node.callspec.params.get("backend", "") if hasattr(request.node, "callspec") else ""
        record_property("row", (marker.args[0], marker.args[1], profile))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the fault table, row by row."""
    rows = []
    for result in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(result, []):
            found = dict(report.user_properties)
            if "row" in found and (report.when == "call" or result != "passed"):
                fault, passes, profile = found["row"]
                rows.append((fault, profile, result.upper(), f"{report.duration:.0f} s", found.get("measured", ""), passes))
    if not rows:
        return
    rows.sort(key=lambda row: row[:2])
    heads = ("fault", "profile", "result", "took", "measured", "passes if")
    widths = [max(len(str(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
    terminalreporter.section("fault table")
    for row in [heads, tuple("-" * width for width in widths), *rows]:
        terminalreporter.write_line("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    total = sum(row[2] == "PASSED" for row in rows)
    terminalreporter.write_line(f"{total} of {len(rows)} rows passed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the long rows out of CI: there run those that need only the local profile and are marked as short."""
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        item.add_marker(pytest.mark.slow)
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if item.get_closest_marker("short") is None or params.get("backend", LOCAL) != LOCAL:
            item.add_marker(pytest.mark.fault)
