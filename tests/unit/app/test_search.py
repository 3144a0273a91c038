"""Searches find what the rows say, in their order, and go along indexes on both databases."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa

from app.jobs.arrivals import ArrivalRepository, NewJob
from app.jobs.models import LONGEST_INDEXED, job_labels, jobs
from app.jobs.naming import Naming
from app.jobs.repository import JobRepository
from app.jobs.search import Wanted, by_spec, found_ids
from app.jobs.states import JobStatus
from migrations import downgrade, upgrade
from pruning_core.spec.prune import PruneSpec

WRITTEN = {"task": "glue/sst2", "sparsity": 0.5}
MODELS = ["a/one", "a/two", "b/One%", "b/other", f"/{'long' * 80}"]
TAGS = ["base", "release", "team:red"]
SEARCHES = [
    {},
    {"model": "a/one"},
    {"model": "a/none"},
    {"model": MODELS[-1]},
    {"model_like": "ONE"},
    {"model_like": "one%"},
    {"model_like": "longlong"},
    {"model_like": "nothing"},
    {"method": "fisher-cg"},
    {"method": "block-lasso"},
    {"metadata": {"team": "red"}},
    {"metadata": {"team": "red", "run": "7"}},
    {"metadata": {"team": "none"}},
    {"name_like": "NIGHTLY"},
    {"name_like": "8%"},
    {"name_like": "nowhere"},
    {"tags": ["base"]},
    {"tags": ["release", "team:red"], "name_like": "nightly"},
    {"tags": ["team"]},
    {"statuses": (JobStatus.FAILED, JobStatus.QUEUED)},
    {"model": "a/two", "metadata": {"team": "blue"}, "statuses": (JobStatus.FAILED,)},
    {"model_like": "o", "method": "fisher-cg", "metadata": {"team": "red"}},
]


def _spec(model):
    return PruneSpec.model_validate(WRITTEN | {"model": model})


@pytest.fixture
def filled(database):
    """Jobs of two tenants, some of them as a version wrote them that knew no columns for searches."""
    chance, called = random.Random(3), random.Random(4)
    with database.write() as connection:
        connection.execute(jobs.delete())
        for number in range(120):
            new = NewJob(
                f"job_{number:04d}",
                chance.choice(["me", "other"]),
                _spec(chance.choice(MODELS)),
                {"team": chance.choice(["red", "blue"])} | ({"run": str(number % 9)} if number % 2 else {}),
                0,
                naming=Naming(called.choice([None, "Nightly 7", "nightly 8%"]), tuple(called.sample(TAGS, number % 3))),
            )
            ArrivalRepository(connection).insert([new])
            changes = {"created_at": float(number // 2), "status": chance.choice(["queued", "failed", "cancelled"])}
            old = {"model": None, "method": None} if number % 5 == 0 else {}
            connection.execute(jobs.update().where(jobs.c.id == new.id).values(changes | old))
            of_it = job_labels.c.job_id == new.id
            if old:
                connection.execute(job_labels.delete().where(of_it))
            connection.execute(job_labels.update().where(of_it).values(created_at=changes["created_at"]))
    return database


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_search_finds_what_the_rows_say_newest_first(filled, search):
    wanted = Wanted("me", **search)
    with filled.read() as connection:
        query = sa.select(jobs.c.id).where(jobs.c.owner == "me", *by_spec(wanted))
        expected = list(connection.scalars(query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc())))
        found, after = [], None
        while page := JobRepository(connection).list(wanted, after=after, limit=7):
            found += [job.id for job in page]
            after = page[-1]
    assert found == expected


def test_some_searches_find_nothing_and_others_do(filled):
    with filled.read() as connection:
        counts = [len(found_ids(connection, Wanted("me", **search), after=None, limit=1000)) for search in SEARCHES]
    assert sum(count == 0 for count in counts) == 6
    assert max(counts) > 40


def test_counts_are_those_of_the_rows(filled):
    with filled.read() as connection:
        grouped = sa.select(jobs.c.status, sa.func.count()).where(jobs.c.owner == "me").group_by(jobs.c.status)
        assert JobRepository(connection).counts("me") == dict(connection.execute(grouped).all())


def test_names_too_long_for_an_index_stay_out_of_it(database):
    longest = f"/{'x' * (LONGEST_INDEXED - 1)}"
    with database.write() as connection:
        connection.execute(jobs.delete())
        for number, model in enumerate([longest, longest + "x"]):
            ArrivalRepository(connection).insert([NewJob(f"job_{number}", "me", _spec(model), {}, 0)])
        assert list(connection.scalars(sa.select(jobs.c.model).order_by(jobs.c.id))) == [longest, None]


def test_an_upgrade_makes_jobs_of_before_findable(filled):
    def seen(connection):
        of_jobs = connection.execute(sa.select(jobs.c.id, jobs.c.model, jobs.c.method).order_by(jobs.c.id)).all()
        labels = sa.select(job_labels.c["job_id", "key", "value", "owner", "created_at"])
        return of_jobs, sorted(map(tuple, connection.execute(labels)))

    downgrade(filled, "0015")
    upgrade(filled)
    with filled.read() as connection:
        of_jobs, labels = seen(connection)
        specs = dict(connection.execute(sa.select(jobs.c.id, jobs.c.spec)).all())
        rows = connection.execute(sa.select(jobs.c.id, jobs.c.metadata, jobs.c.owner, jobs.c.created_at)).all()
    assert len(of_jobs) == 120
    for job_id, model, method in of_jobs:
        named = specs[job_id]["model"]
        assert (model, method) == ((named, "fisher-cg") if len(named) <= LONGEST_INDEXED else (None, None))
    assert labels == sorted(
        (row.id, key, value, row.owner, row.created_at) for row in rows for key, value in row.metadata.items()
    )


@pytest.fixture
def many(database):
    """As many jobs as make an index worth its while, and the database knows it."""
    specs = [_spec(f"a/model{number}") for number in range(300)]
    with database.write() as connection:
        connection.execute(jobs.delete())
        new = [
            NewJob(f"job_{n}", "me", specs[n % 300], {"run": str(n % 300)}, 0, naming=Naming(f"job {n}", (f"t{n % 300}",)))
            for n in range(3000)
        ]
        ArrivalRepository(connection).insert(new)
        connection.execute(jobs.update().where(jobs.c.model == "a/model3").values(status="failed"))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE jobs, job_labels")
    return database


@pytest.mark.parametrize(
    ("search", "index"),
    [
        ({}, "ix_jobs_list"),
        ({"model": "a/model7"}, "ix_jobs_owner_model_created_at_id"),
        ({"method": "none"}, "ix_jobs_list"),
        ({"metadata": {"run": "7"}}, "ix_job_labels_search"),
        ({"tags": ["t7"]}, "ix_job_labels_search"),
        ({"statuses": (JobStatus.FAILED,)}, "ix_jobs_owner_status_created_at_id"),
    ],
    ids=str,
)
def test_a_search_goes_along_an_index_alone(many, search, index):
    with many.read() as connection:
        statements = []
        sa.event.listen(connection, "before_cursor_execute", lambda *seen: statements.append((seen[2], seen[3])))
        found_ids(connection, Wanted("me", **search), after=None, limit=7)
        word = "EXPLAIN QUERY PLAN" if many.is_sqlite else "EXPLAIN"
        statement, parameters = statements[0]
        plan = "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
    assert index in plan, plan
    assert not [word for word in ("SCAN ", "TEMP B-TREE", "Seq Scan", "Sort") if word in plan], plan


def test_counts_read_an_index_alone(many):
    with many.read() as connection:
        statements = []
        sa.event.listen(connection, "before_cursor_execute", lambda *seen: statements.append((seen[2], seen[3])))
        JobRepository(connection).counts("me")
        word = "EXPLAIN QUERY PLAN" if many.is_sqlite else "EXPLAIN"
        statement, parameters = statements[0]
        plan = "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
    assert ("USING COVERING INDEX" if many.is_sqlite else "Index Only Scan") in plan, plan
    assert not [word for word in ("USING INDEX", "Seq Scan", "Sort") if word in plan], plan
