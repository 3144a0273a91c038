"""Turns among tenants: the arithmetic by itself, and claims on both databases."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import sqlalchemy as sa

from app.db import now
from app.jobs.fairness import Round, order
from app.jobs.leases import LeaseRepository
from app.jobs.line import LineRepository
from app.jobs.models import jobs, queue_limits, tenants, turns
from app.jobs.needs import Abilities, Needs
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}).model_dump(mode="json")
SHARES = {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.fixture
def line(database):
    """An empty line; gives a function that fills it with jobs, all in one statement, in the order in which they are named."""
    with database.write() as connection:
        for table in (jobs, tenants, turns, queue_limits):
            connection.execute(table.delete())
    made = 0

    def fill(*rows):
        nonlocal made
        values = []
        for row in rows:
            made += 1
            values.append(_row(made) | row)
        with database.write() as connection:
            for start in range(0, len(values), 500):
                connection.execute(jobs.insert(), values[start : start + 500])
        return [value["id"] for value in values]

    return fill


def _row(number):
    return {
        "id": f"job_{number:06d}",
        "owner": "",
        "status": "queued",
        "priority": 0,
        "rank": 0,
        "queue": "any",
        "spec": SPEC,
        "metadata": {},
        "version": 1,
        "fence": 0,
        "cancel_requested": False,
        "attempt": 0,
        "crashes": 0,
        "losses": 0,
        "not_before": 0.0,
        "publish_count": 0,
        "created_at": float(number),
        "gpu_bytes": None,
    }


def _claim(database, **options):
    with database.write() as connection:
        return LeaseRepository(connection).claim(worker="w", lease_s=30, **options)


def _set(database, table, *rows):
    with database.write() as connection:
        connection.execute(table.insert(), list(rows))


def _finish(database, job_id):
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(status="succeeded"))


def test_claims_follow_the_shares_to_within_a_turn_all_along(database, line):
    _set(database, tenants, *({"owner": owner, "share": share} for owner, share in SHARES.items()))
    # The greediest tenant came first, and with the most jobs.
    line(*({"owner": owner} for owner in "a" * 100 + "b" * 60 + "c" * 60))
    had = Counter()
    for number in range(1, 97):
        had[_claim(database).owner] += 1
        for owner, share in SHARES.items():
            assert abs(had[owner] - number * share / 6) <= 2, (number, had)
    assert had == {"a": 16, "b": 32, "c": 48}


def test_one_job_behind_797_of_another_tenant_starts_next(database, line):
    line(*({"owner": "many", "priority": 9} for _ in range(797)))
    assert _claim(database).owner == "many"
    (one,) = line({"owner": "one"})
    assert _claim(database).job_id == one
    assert _claim(database).owner == "many"


def test_who_was_idle_has_no_credit(database, line):
    line({"owner": "idle"}, *({"owner": "busy"} for _ in range(60)))
    assert _claim(database).owner == "idle"
    for _ in range(40):
        assert _claim(database).owner == "busy"
    line(*({"owner": "idle"} for _ in range(20)))
    following = [_claim(database).owner for _ in range(20)]
    assert abs(Counter(following)["idle"] - 10) <= 1


def test_priority_orders_within_a_tenant_alone(database, line):
    low, high, other = line({"owner": "a"}, {"owner": "a", "priority": 9}, {"owner": "b"})
    line({"owner": "b", "priority": 0})
    assert [_claim(database).job_id for _ in range(3)] == [high, other, low]


def test_a_rank_goes_before_all_turns_and_costs_none(database, line):
    ordinary = line(*({"owner": owner} for owner in "aabb"))
    ranked = line({"owner": "b", "rank": -9}, {"owner": "c", "rank": -9}, {"owner": "a", "rank": -3})
    first = [_claim(database).job_id for _ in range(3)]
    assert first == ranked
    assert [_claim(database).job_id for _ in range(4)] == [ordinary[0], ordinary[2], ordinary[1], ordinary[3]]


def test_of_one_rank_tenants_have_turns_too(database, line):
    line(*({"owner": "a", "rank": -9} for _ in range(20)), {"owner": "b", "rank": -9})
    assert [_claim(database).owner for _ in range(2)] == ["a", "b"]


def test_a_job_that_is_not_due_yields_to_the_next_of_its_tenant_and_a_tenant_to_the_others(database, line):
    line({"owner": "a", "priority": 9, "not_before": 4e9}, {"owner": "b", "not_before": 4e9})
    due, other = line({"owner": "a"}, {"owner": "c"})
    assert [_claim(database).job_id for _ in range(2)] == [due, other]
    assert _claim(database) is None


def test_every_tenant_has_its_turn_whatever_others_submit(database, line):
    """Nobody starves: each of many tenants, of any share, is claimed from within a bounded number of claims."""
    chance = random.Random(5)
    owners = [f"t{number}" for number in range(12)]
    _set(database, tenants, *({"owner": owner, "share": chance.choice((0.5, 1, 4))} for owner in owners))
    line(*({"owner": owner} for owner in owners for _ in range(3)))
    last = dict.fromkeys(owners, 0)
    for number in range(1, 150):
        claim = _claim(database)
        last[claim.owner] = number
        line({"owner": claim.owner, "priority": 9})
        # In one turn of the smallest share, all others together have at most the sum of theirs, and one more each.
        assert number - min(last.values()) <= sum((4 / 0.5) + 1 for _ in owners)
    assert all(last.values())


def test_limits_of_a_tenant_and_of_a_queue(database, line):
    _set(database, tenants, {"owner": "a", "share": 1.0, "max_running": 2}, {"owner": "b", "share": 1.0, "max_running": None})
    _set(database, queue_limits, {"queue": "any+big", "max_running": 1})
    line(*({"owner": "a"} for _ in range(4)))
    line(*({"owner": "b", "queue": "any+big"} for _ in range(2)), {"owner": "b"})
    claimed = [claim for _ in range(8) if (claim := _claim(database)) is not None]
    assert Counter(claim.owner for claim in claimed) == {"a": 2, "b": 2}
    with database.read() as connection:
        big = connection.scalars(sa.select(jobs.c.id).where(jobs.c.status == "running", jobs.c.queue == "any+big")).all()
    assert len(big) == 1
    _finish(database, big[0])
    assert _claim(database).owner == "b"
    assert _claim(database) is None, "a still has two"


def test_the_limit_of_a_tenant_stands_above_that_of_the_settings(database, line):
    _set(database, tenants, {"owner": "a", "share": 1.0, "max_running": 3})
    line(*({"owner": owner} for owner in "aaaabbbb"))
    claimed = Counter(claim.owner for _ in range(9) if (claim := _claim(database, max_running=1)) is not None)
    assert claimed == {"a": 3, "b": 1}


def test_a_worker_takes_only_what_it_serves(database, line):
    needs = [Needs(), Needs(device="cuda"), Needs(device="cuda", gpu_memory_bytes=30 * 2**30), Needs(tags=("a100",))]
    ids = line(*({"owner": "a", "queue": need.queue, "gpu_bytes": need.gpu_memory_bytes} for need in needs))
    cpu, small = Abilities(device="cpu"), Abilities(device="cuda", gpu_bytes=24 * 2**30)
    large = Abilities(device="cuda", gpu_bytes=80 * 2**30, tags=("a100", "nvlink"))
    assert _claim(database, abilities=cpu).job_id == ids[0]
    assert _claim(database, abilities=cpu) is None
    assert _claim(database, abilities=small).job_id == ids[1]
    assert _claim(database, abilities=small) is None
    assert {_claim(database, abilities=large).job_id for _ in range(2)} == set(ids[2:])


def test_each_kind_of_worker_has_a_round_of_its_own(database, line):
    """A tenant whose jobs keep the GPUs busy is not put back on the other workers for it, nor do their shares get lost."""
    cpu, cuda = Abilities(device="cpu"), Abilities(device="cuda")
    _set(database, tenants, {"owner": "a", "share": 3.0})
    line(*({"owner": "gpu", "queue": "cuda"} for _ in range(90)), *({"owner": owner, "queue": "cpu"} for owner in "ac" * 40))
    line(*({"owner": "gpu", "queue": "cpu"} for _ in range(40)))
    had = Counter()
    for _ in range(30):
        for _ in range(3):
            _finish(database, _claim(database, abilities=cuda).job_id)
        had[_claim(database, abilities=cpu).owner] += 1
    assert had["a"] == pytest.approx(18, abs=2)
    assert had["c"] == pytest.approx(6, abs=2)
    assert had["gpu"] == pytest.approx(6, abs=2)


def test_the_line_names_the_first_of_each_group(database, line):
    chance = random.Random(3)
    rows = [
        {
            "owner": chance.choice("abcdef"),
            "queue": chance.choice(("any", "cuda", "cpu")),
            "rank": chance.choice((0, 0, -4)),
            "priority": chance.randrange(3),
        }
        for _ in range(200)
    ]
    line(*rows)
    expected = {}
    for number, row in enumerate(rows, 1):
        key = (row["rank"], row["owner"], row["queue"])
        expected[key] = min(expected.get(key, (9,)), (-row["priority"], float(number), f"job_{number:06d}"))
    with database.read() as connection:
        found = LineRepository(connection).groups()
    assert {(one.rank, one.owner, one.queue): (one.since, one.first) for one in found} == {
        key: value[1:] for key, value in expected.items()
    }


def test_old_turns_are_forgotten(database, line):
    line({"owner": "a"}, {"owner": "b"})
    _claim(database)
    with database.write() as connection:
        connection.execute(turns.update().values(taken_at=now() - 100))
        LineRepository(connection).forget(older_than_s=50)
        assert connection.scalar(sa.select(sa.func.count()).select_from(turns)) == 0
    assert _claim(database).owner == "b"


def test_turns_that_start_at_once_go_to_the_older_job():
    heads = {"b": (1.0, "x"), "a": (2.0, "y")}
    assert order(heads, Round()) == ["b", "a"]
    assert order(heads, Round({"b": 0.0})) == ["a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_turns_are_counted_as_they_are_taken(seed):
    """`jobs_until` against the order itself, claim by claim; with shares whose turns add up without rounding."""
    chance = random.Random(seed)
    owners = "abcd"
    shares = {owner: chance.choice((0.5, 1.0, 4.0)) for owner in owners}
    taken = {}
    for _ in range(chance.randrange(20)):
        taken = _take(chance.choice(owners), taken, shares)
    heads = {owner: (chance.random(), owner) for owner in owners}
    own_before = chance.randrange(6)
    turns_ = Round(taken, shares)
    moment = turns_.start("a") + own_before / shares["a"]
    expected = Counter()
    ahead, simulated = own_before, taken
    while True:
        owner = order(heads, Round(simulated, shares))[0]
        if owner == "a":
            if not ahead:
                break
            ahead -= 1
        expected[owner] += 1
        simulated = _take(owner, simulated, shares)
    for owner in "bcd":
        counted = turns_.jobs_until(owner, moment, turns_.clock, wins_ties=heads[owner] < heads["a"])
        assert counted == expected[owner]


def _take(owner, taken, shares):
    return taken | {owner: Round(taken, shares).start(owner)}
