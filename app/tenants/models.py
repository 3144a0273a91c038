"""The table of deletions of tenants, under way and done."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

tenant_deletions = sa.Table(
    "tenant_deletions",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("requested_at", sa.Double, nullable=False),
    sa.Column("with_audit", sa.Boolean, nullable=False),
    sa.Column("finished_at", sa.Double),  # null: nothing new of this tenant is taken
    sa.Column("counts", sa.JSON, nullable=False),  # what was deleted so far, by kind
)
