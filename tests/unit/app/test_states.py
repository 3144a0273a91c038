"""The transition table, walked on real rows: what it allows happens, and nothing else does."""

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs
from app.jobs.repository import JobRepository, move
from app.jobs.states import ACTIVE, TERMINAL, TRANSITIONS, JobStatus, Transition
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


def test_every_transition_has_its_line():
    assert set(TRANSITIONS) == set(Transition)
    assert {target for _, target in TRANSITIONS.values()} == set(JobStatus)


def test_nothing_leaves_a_terminal_state_but_a_failed_job_that_its_owner_tries_again():
    leaving = {transition: sources & TERMINAL for transition, (sources, _target) in TRANSITIONS.items() if sources & TERMINAL}
    assert leaving == {Transition.RETRY: {JobStatus.FAILED}}


def test_every_state_is_reached_and_ends():
    ways = {status: {target for sources, target in TRANSITIONS.values() if status in sources} for status in JobStatus}
    for status in set(JobStatus) - TERMINAL:
        assert ways[status], "no state is a dead end"
    seen, todo = set(), {JobStatus.QUEUED}
    while todo:
        status = todo.pop()
        seen.add(status)
        todo |= ways[status] - seen
    assert seen == set(JobStatus)
    assert frozenset({JobStatus.RUNNING, JobStatus.CANCELLING}) == ACTIVE


def test_a_job_that_is_being_cancelled_succeeds_or_is_cancelled():
    ways = {target for sources, target in TRANSITIONS.values() if JobStatus.CANCELLING in sources}
    assert ways == {JobStatus.SUCCEEDED, JobStatus.CANCELLED}


@pytest.mark.parametrize("transition", Transition)
def test_rows_move_as_the_table_says(database, transition):
    sources, target = TRANSITIONS[transition]
    for status in JobStatus:
        job_id = f"job_{status}"
        with database.write() as connection:
            JobRepository(connection).insert(job_id, owner="", spec=SPEC, metadata={}, priority=0)
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(status=str(status)))
            assert move(connection, job_id, transition) == (status in sources)
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()
        assert (row.status, row.version) == ((target, 2) if status in sources else (status, 1))
