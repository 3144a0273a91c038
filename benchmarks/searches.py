"""Searches of one tenant among 50,000 jobs, on both databases: ``python -m benchmarks.searches``.

The times are of the queries as the API runs them, on one connection, without HTTP: the median and the slowest of some.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa

from app.db import Database
from app.jobs import models
from app.jobs.arrivals import ArrivalRepository, NewJob
from app.jobs.naming import Naming
from app.jobs.repository import JobRepository
from app.jobs.search import Wanted
from app.jobs.states import JobStatus
from benchmarks.load import timed
from benchmarks.profiles import Bench, profiles
from pruning_core.spec.prune import PruneSpec

JOBS, CHUNK = 50_000, 1000
MOST_MS = 20.0
OWNER, PAGE = "acme", 21
MODELS = [f"team{number % 7}/model-{number}" for number in range(400)]


def fill(database: Database, count: int) -> None:
    """Write jobs of one tenant, and a tenth as many of another: of many models, most of them ended, with three labels each."""
    chance = random.Random(7)  # noqa: S311 - which job has which model is no secret
    written = {"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}
    specs = [PruneSpec.model_validate(written | {"model": model}) for model in MODELS]
    for start in range(0, count, CHUNK):
        with database.write() as connection:
            ArrivalRepository(connection).insert(
                [
                    NewJob(
                        f"job_{uuid4().hex}",
                        OWNER if number % 11 else "other",
                        chance.choice(specs),
                        {"run": str(number), "team": f"t{number % 5}", "stage": "nightly"},
                        0,
                        naming=Naming(f"night {number}", ("nightly",)),
                    )
                    for number in range(start, min(start + CHUNK, count))
                ]
            )
    ends = [(str(JobStatus.SUCCEEDED), 0.8), (str(JobStatus.FAILED), 0.15)]
    with database.write() as connection:
        ids = list(connection.scalars(sa.select(models.jobs.c.id)))
        chance.shuffle(ids)
        for status, share in ends:
            some, ids = ids[: round(share * count)], ids[round(share * count) :]
            for start in range(0, len(some), CHUNK):
                of_them = models.jobs.c.id.in_(some[start : start + CHUNK])
                connection.execute(models.jobs.update().where(of_them).values(status=status, version=2))
    if not database.is_sqlite:  # as autovacuum does within a minute
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def searches(repository: JobRepository) -> dict[str, Callable[[], object]]:
    """Return what is searched for, by words."""

    def listed(**wanted: object) -> Callable[[], object]:
        return lambda: repository.list(Wanted(OWNER, **wanted), after=None, limit=PAGE)

    return {
        "newest": listed(),
        "model, many jobs": listed(model=MODELS[17]),
        "model, none": listed(model="team0/nothing"),
        "part of a model's name": listed(model_like="MODEL-17"),
        "part of a name, none": listed(model_like="nothing"),
        "metadata, one job": listed(metadata={"run": "31415"}),
        "metadata, all jobs": listed(metadata={"stage": "nightly"}),
        "metadata, two labels": listed(metadata={"team": "t3", "stage": "nightly"}),
        "metadata, none": listed(metadata={"run": "x"}),
        "part of a job's name, many": listed(name_like="NIGHT"),
        "part of a job's name, one": listed(name_like="31415"),
        "part of a job's name, none": listed(name_like="nothing"),
        "tag, all jobs": listed(tags=["nightly"]),
        "tag, none": listed(tags=["x"]),
        "status": listed(statuses=[JobStatus.FAILED]),
        "status that none has": listed(statuses=[JobStatus.CANCELLED]),
        "method, none": listed(method="block-lasso"),
        "counts by status": lambda: repository.counts(OWNER),
        "models of the newest": lambda: repository.models(OWNER, among=1000),
    }


def measure(bench: Bench, count: int, repeats: int) -> dict[str, list[float]]:
    """Measure the milliseconds of every search."""
    database = bench.cluster().backend.database()
    try:
        fill(database, count)
        taken: dict[str, list[float]] = {}
        for _ in range(repeats + 1):
            with database.read() as connection:
                for name, act in searches(JobRepository(connection)).items():
                    taken.setdefault(name, []).append(timed(act))
        return {name: times[1:] for name, times in taken.items()}  # without the first, which compiles the statement
    finally:
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/searches.json"))
    options = parser.parse_args()
    with profiles() as benches:
        found = {bench.profile: measure(bench, options.jobs, options.repeats) for bench in benches}
    print(f"\nmedian and slowest of {options.repeats}, in ms; {options.jobs:,} jobs; at most {MOST_MS:g} ms".replace(",", " "))
    print(f"  {'':26}" + "".join(f"{profile:>28}" for profile in found))
    for name in next(iter(found.values())):
        cells = (f"{statistics.median(times[name]):.1f}, {max(times[name]):.1f}" for times in found.values())
        print(f"  {name:26}" + "".join(f"{cell:>28}" for cell in cells))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"cpus": os.cpu_count(), "load": os.getloadavg()[0], "ms": found}, indent=1) + "\n")
    print(f"\n{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; written to {options.out}")


if __name__ == "__main__":
    main()
