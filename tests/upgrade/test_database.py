"""Databases of earlier releases migrate: the schema is today's, and every row is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from tests.upgrade.generation import Generation, every_generation
from tests.upgrade.product import Database, config_for, revisions, upgrade

Rows = dict[str, list[dict[str, object]]]


@every_generation
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_migrates(old: Generation, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "sqlite":
        state = old.restore_local(tmp_path)
    else:
        state = old.restore_production(tmp_path, request.getfixturevalue("postgres_url"))
    database = state.database()
    try:
        before = _rows(database)
        assert all(before[table] for table in before), "every table has something to lose"
        upgrade(database)
        assert len(set(revisions(database))) == 1
        command.check(config_for(database))
        after = _rows(database)
        assert {table: _narrowed(after.get(table, []), rows) for table, rows in before.items()} == before
    finally:
        database.close()


def _rows(database: Database) -> Rows:
    """Read every row of every table."""
    tables = sa.MetaData()
    tables.reflect(database.engine)
    with database.read() as connection:
        return {
            table.name: sorted((dict(row) for row in connection.execute(table.select()).mappings()), key=str)
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


def _narrowed(rows: list[dict[str, object]], known: list[dict[str, object]]) -> list[dict[str, object]]:
    """Leave out what was added since."""
    return sorted(({name: row.get(name) for name in known[0]} for row in rows), key=str)
