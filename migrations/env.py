"""How Alembic connects: through the application's own database class, one transaction for all pending revisions."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from alembic import context

import app.audit.models
import app.jobs.control
import app.jobs.models
import app.keys.models
import app.people.models
import app.tenants.models
import app.uploads.models
import app.webhooks.models  # noqa: F401 - each declares its tables
from app.db import Database, metadata

# Any number that nothing else in the database uses; two hosts that migrate at once take turns.
_LOCK = 6_226_173


def run() -> None:
    """Run the pending revisions."""
    database = cast("Database", context.config.attributes["database"])
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("SET LOCAL lock_timeout = '10min'"))
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=database.is_sqlite)
        with context.begin_transaction():
            context.run_migrations()


run()
