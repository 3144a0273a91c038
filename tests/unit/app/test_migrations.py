"""The scripts make the tables that the code declares, up and down, on both databases."""

import sqlalchemy as sa
from alembic import command

from app.settings import Settings
from migrations import config_for, downgrade, upgrade


def test_the_schema_has_not_drifted(database):
    command.check(config_for(database))


def test_down_and_up_again(database):
    downgrade(database, "base")
    assert sa.inspect(database.engine).get_table_names() == ["alembic_version"]
    upgrade(database)
    upgrade(database)
    assert {"jobs", "job_events", "artifacts", "idempotency_keys"} <= set(sa.inspect(database.engine).get_table_names())


def test_settings_read_roots_from_the_environment(monkeypatch):
    monkeypatch.setenv("COPPICE_ALLOWED_ROOTS", "/a:/b")
    assert [str(root) for root in Settings().allowed_roots] == ["/a", "/b"]
