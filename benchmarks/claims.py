"""``make bench-claims``: the time of a claim among 50,000 queued jobs, by how many tenants they are of, on both databases.

The product's own claim, in a transaction of its own with its commit. ``processor`` is what this process computes for one, which
another load of the machine does not stretch; on PostgreSQL the server's part is not in it. Prints a table and writes
``benchmarks/results/claims.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.models import jobs, turns
from app.jobs.states import JobStatus
from migrations import upgrade
from pruning_core.spec.prune import PruneSpec
from tests import servers

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}).model_dump(mode="json")
TENANTS = (1, 100, 500)
_AT_ONCE = 5000


def fill(database: Database, count: int, tenants: int) -> None:
    """Replace all jobs by queued ones of mixed priorities, of tenants in turn."""
    began_s = time.time() - count
    rows = [
        {
            "id": f"job_{number:08d}",
            "owner": f"tenant_{number % tenants}",
            "status": str(JobStatus.QUEUED),
            "priority": number * 7 % 10,
            "spec": SPEC,
            "metadata": {},
            "version": 1,
            "cancel_requested": False,
            "not_before": began_s,
            "created_at": began_s + number,
        }
        | dict.fromkeys(("fence", "attempt", "crashes", "losses", "publish_count"), 0)
        for number in range(count)
    ]
    with database.write() as connection:
        connection.execute(turns.delete())
        connection.execute(jobs.delete())
        for start in range(0, count, _AT_ONCE):
            connection.execute(jobs.insert(), rows[start : start + _AT_ONCE])


def claim_ms(database: Database, claims: int) -> tuple[list[float], float]:
    """Return the milliseconds of some claims, one after the other, and those of this process's processor a claim."""
    taken = []
    used = time.process_time()
    for _ in range(claims):
        began = time.perf_counter()
        with database.write() as connection:
            claim = LeaseRepository(connection).claim(worker="bench", lease_s=30)
        taken.append(1000 * (time.perf_counter() - began))
        assert claim is not None
    return taken, 1000 * (time.process_time() - used) / claims


def measure(url: str, queued: int, claims: int) -> dict[int, dict[str, float]]:
    """Measure claims on one database, by the number of tenants."""
    database = Database(url)
    upgrade(database)
    found: dict[int, dict[str, float]] = {}
    for tenants in TENANTS:
        fill(database, queued, tenants)
        claim_ms(database, 1)  # warm up
        taken, used = claim_ms(database, claims)
        found[tenants] = {
            "least_ms": min(taken),
            "median_ms": statistics.median(taken),
            "longest_ms": max(taken),
            "processor_ms": used,
        }
    database.close()
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=50_000)
    parser.add_argument("--claims", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/claims.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coppice-bench-") as folder, servers.postgres() as postgres:
        urls = {
            "SQLite": f"sqlite+pysqlite:///{folder}/coppice.db",
            "PostgreSQL": servers.new_database(postgres.port),
        }
        results = {name: measure(url, options.queued, options.claims) for name, url in urls.items()}
    print(f"a claim among {options.queued} queued jobs, {options.claims} claims each, in ms\n")
    print(f"{'':12}{'tenants':>9}{'least':>9}{'median':>9}{'longest':>9}{'processor':>11}")
    for name, found in results.items():
        for tenants, row in found.items():
            print(
                f"{name:12}{tenants:9}{row['least_ms']:9.1f}{row['median_ms']:9.1f}{row['longest_ms']:9.1f}{row['processor_ms']:11.1f}"
            )
    document = {"queued": options.queued, "cpus": os.cpu_count(), "load": os.getloadavg()[0], "results": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; written to {options.out}")


if __name__ == "__main__":
    main()
