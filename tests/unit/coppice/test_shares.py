"""``coppice tenants`` and ``coppice queue`` on the service's host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.db import Database
from app.jobs.line import LineRepository
from app.jobs.repository import JobRepository
from app.settings import Settings
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


@pytest.fixture
def here(tmp_path: Path):
    """Run a command on a service's host."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "coppice.cli", *arguments]
        environment = os.environ | {"COPPICE_DATA_DIR": str(tmp_path / "data"), "TERM": "dumb", "COLUMNS": "120"}
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=environment)

    return run


@pytest.mark.long
def test_shares_and_limits_are_set_and_listed(here, tmp_path):
    made = here("tenants", "set", "acme", "--share", "3", "--max-running", "8")
    assert (made.returncode, made.stdout.strip()) == (0, "acme: share 3, 8 jobs at once"), made.stderr
    assert here("tenants", "set", "acme", "--max-running", "0").stdout.strip() == (
        "acme: share 3, as many jobs at once as the settings allow"
    )
    assert here("queue", "set", "cuda+a100", "--max-running", "4").returncode == 0
    database = Database(Settings(data_dir=tmp_path / "data").resolved_database_url)
    with database.write() as connection:
        JobRepository(connection).insert("job_a", owner="other", spec=SPEC, metadata={}, priority=0)
        shares, limits = LineRepository(connection).rules(None)
    database.close()
    assert (shares, limits.tenants, limits.queues) == ({"acme": 3.0}, {}, {"cuda+a100": 4})
    listed = {own["tenant"]: own for own in json.loads(here("tenants", "list", "--json").stdout)}
    assert (listed["acme"]["share"], listed["acme"]["max_running"], listed["acme"]["jobs"]) == (3.0, None, {})
    assert (listed["other"]["share"], listed["other"]["jobs"]) == (1.0, {"queued": 1})
    assert [own["name"] for own in json.loads(here("queue", "list", "--json").stdout)] == ["any", "cuda+a100"]
    assert "acme" in here("tenants", "list").stdout
    assert here("queue", "set", "cuda+a100", "--max-running", "0").returncode == 0
    assert "cuda+a100" not in here("queue", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenants", "set", "acme"), "give --share, --max-running or both"),
        (("tenants", "set", "acme", "--share", "0"), "a share is between 0.001 and 1000"),
        (("tenants", "set", "acme", "--share", "nan"), "a share is between 0.001 and 1000"),
        (("queue", "set", "gpu", "--max-running", "1"), "a queue is any, cpu or cuda"),
        (("queue", "set", "cuda+b+a", "--max-running", "1"), "a queue is any, cpu or cuda"),
    ],
)
def test_what_makes_no_sense_is_said(here, arguments, said):
    done = here(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
