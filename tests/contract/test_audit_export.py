"""The audit log as a chain of lines: whole, in pages, in several exports, and every change of it is found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.audit.records import Action
from app.audit.repository import AuditRepository
from coppice.audit_chain import FIRST, ChainBroken, check
from coppice.cli import app
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


def record(api: Api, number: int) -> None:
    with api.database.write() as connection:
        for place in range(number):
            AuditRepository(connection).record(Action.JOB_SUBMITTED, "acme", "key_1", f"job_{place}")


def export(api: Api, **asked: object) -> list[bytes]:
    answer = api.client.get("/v1/audit-events/export", params=asked)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "application/x-ndjson"), answer.text
    return answer.content.splitlines()


def test_an_export_is_whole_and_goes_on_where_the_last_ended(api: Api) -> None:
    assert export(api) == []
    record(api, 1203)
    first = export(api)
    chain = check(first)
    assert chain.lines == 1203
    assert [json.loads(line)["subject"] for line in first] == [f"job_{place}" for place in range(1203)]
    assert json.loads(first[0])["previous"] == FIRST
    assert json.loads(first[7])["previous"] == "sha256:" + hashlib.sha256(first[6]).hexdigest()
    record(api, 2)
    more = export(api, after=chain.last_id, previous=chain.head)
    assert check(first + more).lines == 1205
    assert first + more == export(api), "the same lines, in one export or in two"


def test_what_was_not_committed_when_it_was_exported_is_in_the_next_one(api: Api) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with api.database.write() as connection:
            AuditRepository(connection).record(Action.JOB_SUBMITTED, "acme", "", "slow")
            begun.set()
            go_on.wait(5)

    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(5)
    if not api.database.is_sqlite:  # where writers take turns anyway
        with api.database.write() as connection:
            AuditRepository(connection).record(Action.JOB_SUBMITTED, "acme", "", "quick")
    threading.Timer(0.5, go_on.set).start()
    started = time.monotonic()
    subjects = [json.loads(line)["subject"] for line in export(api)]
    thread.join()
    assert time.monotonic() - started > 0.2, "it waited for the writer"
    assert subjects == (["slow"] if api.database.is_sqlite else ["slow", "quick"])


@pytest.mark.parametrize("asked", [{"after": -1}, {"previous": "sha256:0"}, {"previous": "md5:" + "0" * 64}])
def test_bad_places_are_refused(api_on_sqlite: Api, asked: dict[str, object]) -> None:
    assert_problem(api_on_sqlite.client.get("/v1/audit-events/export", params=asked), 422, "invalid_request")


def test_every_change_is_found(api_on_sqlite: Api) -> None:
    record(api_on_sqlite, 5)
    good = export(api_on_sqlite)
    assert check([]).head == FIRST
    spoilt = {
        "changed": [good[0], good[1].replace(b"job_1", b"job_9"), *good[2:]],
        "a space more": [good[0], good[1] + b" ", *good[2:]],
        "missing": [*good[:2], *good[3:]],
        "the first missing": good[1:],
        "reordered": [good[0], good[2], good[1], *good[3:]],
        "twice": [*good[:2], good[1], *good[2:]],
        "no JSON": [*good[:2], b"{", *good[2:]],
        "no object": [*good[:2], b"7", *good[2:]],
    }
    for name, lines in spoilt.items():
        with pytest.raises(ChainBroken, match=r"line \d"):
            raise AssertionError(f"{name}: {check(lines)}")
    assert check(good[:-1]).head != check(good).head, "what is cut off at the end shows by the head"


@pytest.mark.long
def test_on_the_command_line(api_on_sqlite: Api, tmp_path: Path) -> None:
    out, environment = tmp_path / "audit.jsonl", os.environ | {"COPPICE_DATA_DIR": str(api_on_sqlite.scratch / "data")}

    def export_here() -> tuple[int, str]:
        line = [sys.executable, "-m", "coppice.cli", "audit", "export", "--out", str(out)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=environment)
        return done.returncode, done.stderr

    def verify(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", "verify", str(out), *more])
        return done.exit_code, done.output

    record(api_on_sqlite, 3)
    assert "3 new of 3 lines" in export_here()[1]
    record(api_on_sqlite, 2)
    assert "2 new of 5 lines" in export_here()[1]
    code, said = verify()
    assert (code, "5 lines, whole" in said) == (0, True)
    head = said.split()[-1]
    assert verify("--head", head)[0] == 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:-1]))
    assert verify()[0] == 0
    assert verify("--head", head)[0] == 4
    out.write_bytes(b"".join([lines[0], *lines[2:]]))
    code, said = verify()
    assert (code, "line 2 does not follow" in said.replace("\n", " ")) == (4, True)
    assert export_here()[0] == 4, "nothing is appended to what is spoilt"
