"""The scripts make the tables that the code declares, up and down, with rows in them; old code goes on where they only add."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from app.db import Database
from app.settings import Settings
from migrations import config_for, downgrade, upgrade

ROOT = Path(__file__).resolve().parents[3]

# The last commit whose code knows revision 0001 alone. Deployed beside a newer schema, it must do its work.
PREVIOUS = "f10726d"
OLD_CODE = """
import sys
from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError
from app.jobs.repository import JobRepository
from app.storage import StoredArtifact
from pruning_core.report import Progress, Report
from pruning_core.spec import PruneSpec
from tests.unit.app.sample import REPORT

database = Database(sys.argv[1])
spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
def run(kind, name, *args, **kwargs):
    with database.write() as connection:
        return getattr(kind(connection), name)(*args, **kwargs)
for job in ("job_a", "job_b", "job_c", "job_d"):
    run(JobRepository, "insert", job, owner="", spec=spec, metadata={}, priority=0)
    run(JobRepository, "remember_key", "", job, "0" * 64, job)
first, second, third = (run(LeaseRepository, "claim", worker="old", lease_s=30) for _ in range(3))
assert run(LeaseRepository, "heartbeat", first.job_id, 1, lease_s=30, progress=Progress(stage="score", step=1, total=2))
report, files = Report.model_validate(REPORT), [StoredArtifact("model.safetensors", 1, "0" * 64)]
assert run(LeaseRepository, "succeed", first.job_id, 1, report=report, artifacts=files)
assert run(LeaseRepository, "fail", second.job_id, 1, error=JobError("crashed", "it crashed"))
assert run(LeaseRepository, "release", third.job_id, 1)
assert run(LeaseRepository, "reap", max_attempts=3) == []
assert run(JobRepository, "request_cancel", "job_d")
listed = run(JobRepository, "list", owner="", statuses=[], after=None, limit=9)
assert sorted(job.status for job in listed) == ["cancelled", "failed", "queued", "succeeded"]
assert len(run(JobRepository, "artifacts", first.job_id)) == 1
database.close()
"""


def _revisions(database):
    """Every revision, oldest first."""
    scripts = ScriptDirectory.from_config(config_for(database))
    return [script.revision for script in scripts.walk_revisions()][::-1]


@pytest.fixture
def empty(database: Database) -> Database:
    downgrade(database, "base")
    return database


def test_the_schema_has_not_drifted(database):
    command.check(config_for(database))


def test_down_and_up_again(database):
    downgrade(database, "base")
    assert sa.inspect(database.engine).get_table_names() == ["alembic_version"]
    upgrade(database)
    upgrade(database)
    assert {"jobs", "job_events", "artifacts", "idempotency_keys"} <= set(sa.inspect(database.engine).get_table_names())
    command.check(config_for(database))


def test_every_step_keeps_the_rows_both_ways(empty):
    first, *later = _revisions(empty)
    upgrade(empty, first)
    rows = _fill(empty)
    for revision in later:
        upgrade(empty, revision)
        assert _rows(empty, rows) == rows
    for revision in [first, *later][-2::-1]:
        downgrade(empty, revision)
        assert _rows(empty, rows) == rows


def test_what_is_added_needs_nothing_of_code_that_does_not_know_it(empty):
    before = None
    for revision in _revisions(empty):
        upgrade(empty, revision)
        after = _columns(empty)
        for place, column in after.items():
            new = before is not None and place not in before and any(table == place[0] for table, _ in before)
            assert not new or column["nullable"] or column["default"] is not None, f"{revision}: {place}"
        assert before is None or set(before) <= set(after), f"{revision} takes columns away that older code reads"
        before = after


def test_the_previous_release_works_on_the_new_schema(database, tmp_path):
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", PREVIOUS, "app", "pruning_core", "tests"], capture_output=True, check=False
    )
    if packed.returncode != 0:
        pytest.skip(f"this checkout has no history back to {PREVIOUS}: the previous release cannot be tested")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    url = database.url.render_as_string(hide_password=False)
    script = tmp_path / "old_code.py"  # its folder comes first on the path
    script.write_text(OLD_CODE)
    done = subprocess.run([sys.executable, str(script), url], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_settings_read_roots_from_the_environment(monkeypatch):
    monkeypatch.setenv("COPPICE_ALLOWED_ROOTS", "/a:/b")
    assert [str(root) for root in Settings().allowed_roots] == ["/a", "/b"]


def _columns(database):
    inspector = sa.inspect(database.engine)
    tables = [name for name in inspector.get_table_names() if name != "alembic_version"]
    return {(table, column["name"]): column for table in tables for column in inspector.get_columns(table)}


def _fill(database):
    """Write a row into every table of the oldest schema; gives what was written."""
    metadata = sa.MetaData()
    metadata.reflect(database.engine)
    written = {}
    with database.write() as connection:
        for table in (table for table in metadata.sorted_tables if table.name != "alembic_version"):
            values = {column.name: _value(column) for column in table.columns if not column.nullable}
            values |= {"id": "job_a"} if table.name == "jobs" else {}
            connection.execute(table.insert().values(values))
            written[table.name] = values
    return written


def _rows(database, expected):
    """Read back the columns that were written."""
    with database.read() as connection:
        found = {}
        for table, values in expected.items():
            columns = ", ".join(f'"{name}"' for name in values)
            row = connection.exec_driver_sql(f"SELECT {columns} FROM {table}").mappings().one()
            found[table] = {name: _plain(row[name], value) for name, value in values.items()}
        return found


def _plain(found, written):
    import json

    if isinstance(written, dict) and isinstance(found, str):
        return json.loads(found)
    return type(written)(found)


def _value(column):
    if column.name == "status":
        return "queued"
    if column.name == "job_id":
        return "job_a"
    if isinstance(column.type, sa.JSON):
        return {"a": 1}
    return {sa.String: "x", sa.Integer: 1, sa.BigInteger: 1, sa.Boolean: True, sa.Double: 1.5, sa.Float: 1.5}[
        next(
            kind
            for kind in (sa.String, sa.Boolean, sa.BigInteger, sa.Integer, sa.Double, sa.Float)
            if isinstance(column.type, kind)
        )
    ]
