"""The table of audit events: who changed what, and when."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

audit_events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),  # "" for the command line and without authentication
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Index(None, "owner", "id"),
    sqlite_autoincrement=True,
)
