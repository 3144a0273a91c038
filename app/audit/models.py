"""Tables of the audit log: who changed what, and when; and the people that it names."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

audit_events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),  # or a person's id; "" for the command line and without authentication
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Index(None, "owner", "id"),
    sqlite_autoincrement=True,
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # stands where ids of keys do
    sa.Column("issuer", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),  # as the provider last told it
    sa.Column("seen_at", sa.Double, nullable=False),
)
