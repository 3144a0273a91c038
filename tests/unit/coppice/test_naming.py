"""Names and tags on the command line and in both clients: given, listed, changed, and refused by their options."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from app.jobs.leases import LeaseRepository
from app.jobs.outputs import AttemptOutput, OutputRepository
from coppice import AsyncClient, Client
from tests.unit.coppice.conftest import Live
from tests.unit.coppice.test_cli import GOOD, _job, call
from tests.unit.coppice.test_messages import on_a_terminal, words

NAME = "nightly [bold]release[/bold] \N{ROCKET} für später, " + "lang " * 30


@pytest.mark.parametrize("columns", [120, 80, 60])
def test_a_list_with_names_fits_and_ids_stay_whole(live: Live, columns: int) -> None:
    with Client(live.url) as client:
        named = client.submit({**live.spec.model_dump(mode="json"), "name": NAME, "tags": ["release", "7"]}).id
        plain = client.submit(live.spec).id
    lines = on_a_terminal(columns, "jobs", "list", "--url", live.url)
    for job in (named, plain):
        (line,) = [line for line in lines if job in line]
        assert re.search(rf"(^|\s){job}(\s|$)", line)
    assert any("nightly [bold]rel" in line for line in lines), "markup is text"
    assert max(map(cell_len, lines)) <= columns
    assert len(lines) == (3 if columns == 120 else 5)


def test_jobs_are_named_found_and_renamed(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    asked = ("--name", "first try", "--tag", "a", "--tag", "b b", "--no-wait", "--job-id", "one")
    assert call("prune", *_job(live, tmp_path), *at, *asked).exit_code == 0
    assert call("jobs", "show", "one", *at).stdout.splitlines()[1] == "first try #a #b b"
    assert [job["name"] for job in json.loads(call("jobs", "list", *at, "--name", "TRY", "--tag", "a", "--json").stdout)] == [
        "first try"
    ]
    assert json.loads(call("jobs", "list", *at, "--tag", "b", "--json").stdout) == []
    assert call("jobs", "rename", "one", "--name", "second", *at).stdout.strip() == "one: second #a #b b"
    assert call("jobs", "rename", "one", "--tag", "c", *at).stdout.strip() == "one: second #c"
    assert call("jobs", "rename", "one", "--name", "", "--no-tags", *at).stdout.strip() == "one: has no name"
    with live.database.write() as connection:
        claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
        assert claim is not None
        OutputRepository(connection).write(claim.job_id, claim.fence, AttemptOutput(1, "12:00:00 stage [load]\nmore"))
    assert call("jobs", "output", "one", *at).stdout == "12:00:00 stage [load]\nmore\n"
    nothing = call("jobs", "rename", "one", *at)
    assert (nothing.exit_code, "say what is to change" in nothing.stderr) == (2, True)
    derived = call("derive", "one", "--macs-keep", "0.4", "--name", "smaller", "--tag", "d", "--no-wait", *at)
    assert derived.exit_code == 0, derived.stderr
    with Client(live.url) as client:
        made = client.get(derived.stdout.split()[-1])
        assert (made.name, made.tags) == ("smaller", ["d"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--name", "x" * 500), "--name must have at most 200 characters"),
        (("--name", "a\x1b[31mb"), "--name must be one line of text without control characters, and has U+001B"),
        (("--tag", "a,b"), "--tag must hold no comma"),
    ],
)
def test_what_is_no_name_is_said_of_the_option(live: Live, tmp_path: Path, asked: tuple[str, ...], says: str) -> None:
    at = ("--url", live.url)
    with Client(live.url) as client:
        job = client.submit(live.spec).id
    for command in (("prune", *_job(live, tmp_path), "--no-wait"), ("jobs", "rename", job)):
        told = call(*command, *at, *asked)
        assert (told.exit_code, says in told.stderr) == (2, True), told.stderr
    if asked[0] == "--name":  # a run without a service has a name, too, and nobody to find it by tags
        told = call("run", *words(GOOD), "--out", str(tmp_path / "out"), *asked)
        assert (told.exit_code, says in told.stderr) == (2, True), told.stderr


def test_both_clients_name_find_and_rename(live: Live) -> None:
    given = {"sparsity": 0.5, "data": live.spec.task.dataset, "name": "one", "tags": ["a"]}

    async def later() -> list[str | None]:
        async with AsyncClient(live.url) as client:
            job = (await client.prune(live.spec.model, "glue/sst2", **given)).id
            await client.rename(job, name="two", tags=["a", "b"])
            return [job.name for job in await client.list(name="tw", tags=["b"])]

    with Client(live.url) as client:
        job = client.prune(live.spec.model, "glue/sst2", **given).id
        assert client.rename(job, name="three").tags == ["a"]
        assert asyncio.run(later()) == ["two"]
        assert [job.name for job in client.list(tags=["a"])] == ["two", "three"]
