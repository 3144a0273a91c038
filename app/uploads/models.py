"""The table of uploads: who may use which content."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(80), primary_key=True),  # kind and sha256 of the content: the same files have the same id
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),  # when it was last sent again or named by a job; null: since then, not noted
    sa.Index(None, "id"),
    sa.Index(None, "owner", "created_at"),
)
