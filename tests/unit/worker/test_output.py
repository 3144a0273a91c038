"""What a job's owner is told of an attempt: bounded, plain text, without places of the host, and never of another's job."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import Database
from app.jobs.arrivals import ArrivalRepository, NewJob
from app.jobs.leases import LeaseRepository
from app.jobs.models import job_outputs, jobs
from app.jobs.outputs import MOST_CHARACTERS, JobOutputs
from app.jobs.records import Claim
from pruning_core.spec.prune import PruneSpec
from tests.unit.worker.conftest import Bench
from worker.output import Output

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


@pytest.fixture
def database(bench: Bench) -> Database:
    return bench.database


def claimed(database, job_id="job_1") -> Claim:
    with database.write() as connection:
        ArrivalRepository(connection).insert([NewJob(job_id, "me", SPEC, {}, 0)])
        claim = LeaseRepository(connection).claim(worker="w", lease_s=60)
    assert claim is not None
    return claim


def told(database) -> list[str]:
    return [line.strip() for own in JobOutputs(database).of("job_1", owner="me") for line in own.text.split("\n")]


def test_lines_are_plain_and_tell_no_places(database):
    with Output(database, claimed(database), [Path("/data/open")]) as output:
        for line in (
            "Loading\r 10%\r100%|####| 3/3\n",
            "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \x00 \u202e",
            "read /data/open/models/bert/config.json",
            "wrote /srv/coppice/scratch/job_1/2/work/model.bin, and '/data/openx/y/z'",
            "climbs /data/open/../../etc/passwd",
            "from https://host/a/b and 3/4 of it",
            "Traceback (most recent call last):",
            '  File "/usr/lib/python3/x.py", line 1, in secret',
            "    secret()",
            "ValueError: no /usr/lib/x/y.so",
            "",
            "<b>markup</b>",
        ):
            output.printed(line)
    assert told(database) == [
        "100%|####| 3/3",
        "red link \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}",
        "read /data/open/models/bert/config.json",
        "wrote …/model.bin, and '…/z'",
        "climbs …/passwd",
        "from https://host/a/b and 3/4 of it",
        "(a traceback, which is in the worker's log)",
        "ValueError: no …/y.so",
        "<b>markup</b>",
    ]


def test_it_is_bounded_and_the_end_is_kept(database):
    with Output(database, claimed(database), []) as output:
        for number in range(30_000):
            output.printed(f"line {number}")
        output.printed("x" * 10_000)
        output.say("the end")
    text = "\n".join(told(database))
    assert len(text) <= MOST_CHARACTERS
    assert "line 29999" in text
    assert "line 7\n" not in text
    assert text.endswith("the end")


def test_who_has_lost_the_job_writes_nothing_and_the_last_attempts_stay(database):
    first = claimed(database)
    with Output(database, first, []) as late:
        with database.write() as connection:
            connection.execute(jobs.update().values(fence=jobs.c.fence + 1))
        late.printed("from the past")
    assert told(database) == []
    for attempt in range(1, 6):
        with Output(database, Claim("job_1", first.fence + 1, attempt, SPEC), []) as output:
            output.printed(f"attempt {attempt}")
    assert told(database) == ["attempt 3", "attempt 4", "attempt 5"]
    with database.write() as connection:
        connection.execute(jobs.delete())
        assert connection.scalar(sa.select(sa.func.count()).select_from(job_outputs)) == 0
