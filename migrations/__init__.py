"""The database's schema, version by version (Alembic). `upgrade` is what ``coppice migrate`` and ``coppice serve`` run."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.db import Database


def config_for(database: Database) -> Config:
    """Give Alembic's configuration, without a file: the scripts are found beside this module, wherever it is installed."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring a database up to a revision; nothing to do is no error."""
    command.upgrade(config_for(database), revision)


def downgrade(database: Database, revision: str) -> None:
    """Take a database back to a revision."""
    command.downgrade(config_for(database), revision)


def revisions(database: Database) -> tuple[str | None, str]:
    """Give the revision that a database is at (None: never migrated) and the one that this version needs."""
    newest = ScriptDirectory.from_config(config_for(database)).get_current_head()
    assert newest is not None
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision(), newest
